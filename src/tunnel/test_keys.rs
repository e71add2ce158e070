//! Keys made for tests, and known to everyone who reads this: an Ed25519 and an RSA one.
//!
//! The expected PeerIDs were computed by hand from the public keys, not by libp2p.

/// `ssh-keygen -t ed25519`, without a passphrase.
pub(crate) const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDGR3JqLBWS8l5l7S+JfSjM7toQLrpN4FNRVcX9Aw/+MQAAAJj7497x++Pe
8QAAAAtzc2gtZWQyNTUxOQAAACDGR3JqLBWS8l5l7S+JfSjM7toQLrpN4FNRVcX9Aw/+MQ
AAAEBq6N6ovJCcwiP8DeY6+xR5jbpZtmi2zBaNr1ZfxQHbwsZHcmosFZLyXmXtL4l9KMzu
2hAuuk3gU1FVxf0DD/4xAAAAD2NhcHRhaW5Ac3RhdGlvbgECAwQFBg==
-----END OPENSSH PRIVATE KEY-----
";

/// Its public line.
pub(crate) const OPENSSH_PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZHcmosFZLyXmXtL4l9KMzu2hAuuk3gU1FVxf0DD/4x captain@station";

/// The PeerID that kubo would have with it.
pub(crate) const OPENSSH_PEER: &str = "12D3KooWPAN5ej2mftH27296YCEpkR62pVm4rC8dS6HhYtxijuEp";

/// `ssh-keygen -t ed25519`, with a passphrase.
pub(crate) const OPENSSH_ENCRYPTED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABBCeq/ZLC
TUaS1/PQHmZrqHAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIOZVxihfG1k1AHM6
vjbg02QxXteFQMFg54FaXMGdyRp5AAAAkMZe0gr5kMsLug/fdzkhU4wbxOMl46/pz8+pC+
62zOMPtyLgN280NAdGSXcoYkSAWQIUHiN50RSUFlmg16SL4wRv8XzZlVUF/EZExK7uPskH
4n1By/q0fSXuYMdgUG2db1/tdmyIA3uS8+mWcOrptzosY64atDkcMicyeHICFe7eLhilgO
u5ldayq9De/ZngJg==
-----END OPENSSH PRIVATE KEY-----
";

/// What stands in kubo's `config` as `Identity.PrivKey` for the same Ed25519 key.
pub(crate) const KUBO_ED25519: &str =
    "CAESQGro3qi8kJzCI/wN5jr7FHmNulm2aLbMFo2vVl/FAdvCxkdyaiwVkvJeZe0viX0ozO7aEC66TeBTUVXF/QMP/jE=";

/// The same for an RSA key of 2,048 bits.
pub(crate) const KUBO_RSA: &str = "\
CAASqAkwggSkAgEAAoIBAQDS8OOIKJ5VM82JwEoxvmYLMoRf66kUGWESO/KtsqGGgVYMtoXEyGk4zhKOHEUahDZysy\
Sq7u4p7oWXeIhwbhgNPS1wvYW2ng1P7zV+W1QujtHL/e/eRJlvM0/4fIHSRk5FEi6J1vpS/d+bxwZ74et/q2D4DrtO\
nbjRr8maZZd5MsXyQaxZvogcF1DdbGazBXoifjBN2T2vvKDEVPeuPS8k4Xkw1hcbLmvZTJOTReWM7Pjk3Qc0i1M5B6\
eWaqq33rUXpi0poxJqmcbpZg8mQ7LElcSKKDKZRnu24qviAGPbkgkCf/rMH+KrC+beMyHSrlM+UkkZ20FYVUtfDGK+\
utYRAgMBAAECggEAGqbK6LzREczOGasiSgSsxJoTtZbYhwHp4jGRfjbFR8b28KZDDSjmeoHhlZ5RcNc8QI5igfesPx\
S0QP4T/GM8m2JGZ9SE8hzSwRhlIYY32FC9MHvwyZwl6Ac2Acb2vshD7WAttxwNXAethUjGiJ0eccQH0sTxui4dWDOl\
/OGnG23USukI3zw3YC1OStFT3Hl2udtoG2u7zw2jE8A51X82qvIQsz6FwKkZ3+A71ChUq0vqb6461rEPski6h6WFFF\
wImQUvoXOybSS/eVVh9XM04K6z4YyxXVEgaGXUk0g81//y/a9sX1rhY8wOTY5GM6AcqhFY3J+Tai3RBc/UD8BIHQKB\
gQD5waFMdtS6tEjLLvJ5kF4Hq+J1ww2MYA/3xJrBmIs2ET1mqtdIegnZsSq/1HqCvC2EvhGlQHwvSGCZaN/OroUQO+\
npzKzleoVbrQIg5igsnfkyEtMx9N2j1gH6UpR9d8uxcRFC38ZSVdJYRbFawMIe1G92ZxGcuIlRyOziPTcTWwKBgQDY\
NtnoJfK36AHZkz174jFz6A7VGDaYYN71HS57Hq4ft7P+vM27dJtYrFQLfHaLusoOWwXhptplGgQkC4MREpSXz1LrnM\
DL7SXJBi1lHqaOaLQnhyyt+IoD2KWCeyVda/a6FGx6+QnZFvcvrE6BNjrOdI/ta+xsT97Bdq95bb+UAwKBgBO4tXrr\
OzsO91yL9Xuh6brjWLuBznUSNNCUxr+Yww1e6SFNRjij4lk9Qynopk/iehmsRIpvAB9fsLkMbffNEhbJFFxw3Ao21Y\
b6r1tXsT5srvvEPscIFeRVBsz0bmNF7WCyk/Fa6DciLbzoq+uFow56Kd8InnxomfdKTWJEATBXAoGBAMqIZwqtMXXQ\
IJt872UydvyJ7grzCYEnjPKyiS3PiXAwlq0Skuz7x+ECXB/+UNWG/WsBHLtJnt6Bxks1dWryqrqh/Jy0U20zEegCn1\
dPpNlVfxxf5Rx56l67/B4D2PZwAchBBXUT/4OZnabMkyU6dU+bpI7UP70d/B3hXXIzufedAoGBAOTc6XNewhiqOn8z\
r/ZaHLvqessJK0pvJKun8Lj4Iu3IMoMy7dzXkTLtYcRmq0GcRvn3ZzMP785AxpmqT3NUKZJeZ2MyV5ThLZltIlli18\
3VpFO3t62+LLm5FuyhdEYR4WbmVC50M7ZIJTK+vDJNoBb3jqhQfKfzOs53Xw09WgEM";

/// Its PeerID.
pub(crate) const KUBO_RSA_PEER: &str = "QmU45PNk6dibmbEw4mZvfkvF3ZQDyvCJgort1wGFSrMh6L";
