// nostr-tools as a client of a relay: the address of the relay is in RELAY_URL.
//
// Every test makes its own keys and its own connection, so the tests are independent of each other
// and of what the relay already holds. Nothing sleeps for a fixed time: a test waits for a message,
// with a deadline. Where a test says that something does *not* arrive, it waits for the answer to a
// later message on the same connection instead.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { WebSocket } from 'ws'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { fetchRelayInformation } from 'nostr-tools/nip11'
import { nip77 } from 'nostr-tools'

useWebSocketImplementation(WebSocket)

const RELAY = process.env.RELAY_URL
if (!RELAY) {
  console.error('RELAY_URL is not set: give the address of the relay, as in RELAY_URL=ws://127.0.0.1:7777')
  process.exit(2)
}

const DEADLINE_MS = Number(process.env.DEADLINE_MS ?? 5_000)
// nostr-tools pretends that EOSE has come when it has not come in time; ours fails first.
const LATER_THAN_EVERY_DEADLINE_MS = 600_000

/** The promise, or a failure that says what was waited for. */
function within(ms, promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const now = () => Math.floor(Date.now() / 1000)
const prefixOf = reason => /^([a-z-]+):/.exec(reason)?.[1] ?? null
const ids = events => events.map(event => event.id)
const sorted = list => [...list].sort()

/** A key of its own, and events signed by it. */
function author() {
  const secret = generateSecretKey()
  return {
    pubkey: getPublicKey(secret),
    sign: template => finalizeEvent({ created_at: now(), kind: 1, tags: [], content: '', ...template }, secret),
  }
}

const opened = new Set()
after(() => {
  for (const connection of opened) connection.close()
})

/** A nostr-tools connection that ends with the test. */
async function connect(t) {
  const relay = await within(DEADLINE_MS, Relay.connect(RELAY), 'connection')
  relay.baseEoseTimeout = LATER_THAN_EVERY_DEADLINE_MS
  relay.notices = []
  relay.onnotice = notice => relay.notices.push(notice)
  opened.add(relay)
  t.after(() => {
    for (const sub of [...relay.openSubs.values()]) {
      clearTimeout(sub.eoseTimeoutHandle)
      sub.close()
    }
    relay.close()
    opened.delete(relay)
  })
  return relay
}

/** Publishes; answers `{ ok, reason }` whether the relay took the event or not. */
async function offer(relay, event) {
  const answer = relay.publish(event).then(
    reason => ({ ok: true, reason: reason ?? '' }),
    error => ({ ok: false, reason: error.message }),
  )
  return within(DEADLINE_MS, answer, `OK for ${event.id}`)
}

/** Publishes; the relay must take it. */
async function store(relay, ...events) {
  for (const event of events) {
    const { ok, reason } = await offer(relay, event)
    assert.ok(ok, `the relay refused a kind ${event.kind}: ${reason}`)
  }
}

/** Asserts a refusal with a machine-readable prefix, and returns the prefix. */
async function assertRefused(relay, event) {
  const { ok, reason } = await offer(relay, event)
  assert.equal(ok, false, `the relay took what it must refuse (${reason})`)
  assert.ok(prefixOf(reason), `the refusal has no prefix: «${reason}»`)
  return prefixOf(reason)
}

/** A subscription whose messages can be awaited: `stored` before EOSE, `live` after it. */
function subscribe(relay, filters) {
  const seen = { stored: [], live: [], closed: null }
  const waiting = new Set()
  const check = () => waiting.forEach(attempt => attempt())
  const until = (condition, what) =>
    within(
      DEADLINE_MS,
      new Promise((resolve, reject) => {
        const attempt = () => {
          if (condition()) resolve()
          else if (seen.closed !== null) reject(new Error(`subscription closed («${seen.closed}») while waiting: ${what}`))
          else return
          waiting.delete(attempt)
        }
        waiting.add(attempt)
        attempt()
      }),
      what,
    )
  const sub = relay.subscribe(filters, {
    eoseTimeout: LATER_THAN_EVERY_DEADLINE_MS,
    onevent: event => {
      ;(sub.eosed ? seen.live : seen.stored).push(event)
      check()
    },
    oninvalidevent: event => {
      seen.invalid = event
      check()
    },
    oneose: check,
    onclose: reason => {
      seen.closed ??= reason
      check()
    },
  })
  return Object.assign(seen, {
    sub,
    eose: async () => {
      await until(() => sub.eosed, 'EOSE')
      assert.equal(seen.invalid, undefined, 'the relay sent an event that is invalid or outside the filters')
      return seen.stored
    },
    event: id => until(() => seen.live.some(event => event.id === id), `live event ${id}`),
    close: () => {
      clearTimeout(sub.eoseTimeoutHandle)
      sub.close()
    },
  })
}

/** What the relay has stored for these filters. */
async function query(relay, ...filters) {
  const subscription = subscribe(relay, filters)
  const stored = await subscription.eose()
  subscription.close()
  return stored
}

/** A bare WebSocket, for what nostr-tools would not send: messages are awaited by a predicate. */
async function connectRaw(t) {
  const socket = new WebSocket(RELAY)
  const messages = []
  const waiting = new Set()
  let ended = false
  socket.on('message', data => {
    messages.push(JSON.parse(data.toString()))
    waiting.forEach(attempt => attempt())
  })
  socket.on('close', () => {
    ended = true
    waiting.forEach(attempt => attempt())
  })
  t.after(() => socket.terminate())
  await within(DEADLINE_MS, new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)), 'connection')
  return {
    messages,
    send: message => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    receive: (matches, what) =>
      within(
        DEADLINE_MS,
        new Promise((resolve, reject) => {
          const attempt = () => {
            const found = messages.find(matches)
            if (found) resolve(found)
            else if (ended) reject(new Error(`the relay hung up while waiting: ${what}`))
            else return
            waiting.delete(attempt)
          }
          waiting.add(attempt)
          attempt()
        }),
        what,
      ),
  }
}

// ---------------------------------------------------------------------------------------- NIP-01

test('an event is accepted, and found again unchanged', async t => {
  const relay = await connect(t)
  const event = author().sign({ content: 'bonjour, «Étoile» \u2728 \\ "quoted" \n second line', tags: [['t', 'x', 'y'], ['alt', '']] })
  const { ok, reason } = await offer(relay, event)
  assert.ok(ok, reason)
  const [found] = await query(relay, { ids: [event.id] })
  assert.deepEqual(JSON.parse(JSON.stringify(found)), JSON.parse(JSON.stringify(event)))
})

test('a duplicate is accepted with `duplicate:`', async t => {
  const relay = await connect(t)
  const event = author().sign({ content: 'twice' })
  await store(relay, event)
  const { ok, reason } = await offer(relay, event)
  assert.ok(ok, reason)
  assert.equal(prefixOf(reason), 'duplicate', `«${reason}»`)
})

test('a bad signature is refused with `invalid:`', async t => {
  const relay = await connect(t)
  const event = author().sign({ content: 'genuine' })
  const other = author().sign({ content: 'genuine' })
  const forged = { ...JSON.parse(JSON.stringify(event)), sig: other.sig }
  assert.equal(await assertRefused(relay, forged), 'invalid')
  assert.deepEqual(await query(relay, { ids: [event.id] }), [])
  // the forgery must not keep the genuine event out
  await store(relay, event)
})

test('a wrong id is refused with `invalid:`', async t => {
  const relay = await connect(t)
  const event = JSON.parse(JSON.stringify(author().sign({ content: 'before' })))
  assert.equal(await assertRefused(relay, { ...event, content: 'after' }), 'invalid')
  assert.deepEqual(await query(relay, { authors: [event.pubkey] }), [])
})

test('stored events newest first, EOSE, then live, then nothing after CLOSE', async t => {
  const reader = await connect(t)
  const writer = await connect(t)
  const alice = author()
  const start = now() - 100
  const events = [3, 1, 2].map(n => alice.sign({ created_at: start + n, content: `${n}` }))
  await store(writer, ...events)

  const subscription = subscribe(reader, [{ authors: [alice.pubkey] }])
  const stored = await subscription.eose()
  assert.deepEqual(stored.map(event => event.content), ['3', '2', '1'])

  const live = alice.sign({ created_at: start + 4, content: 'live' })
  await store(writer, live)
  await subscription.event(live.id)

  // a late, backdated event is live too
  const late = alice.sign({ created_at: start, content: 'late' })
  await store(writer, late)
  await subscription.event(late.id)

  // an observer on the same connection tells when an event of after the CLOSE would have come
  const observer = subscribe(reader, [{ authors: [alice.pubkey], limit: 0 }])
  await observer.eose()
  assert.deepEqual(observer.stored, [], 'limit 0 asks for no stored events')
  subscription.close()
  const unseen = alice.sign({ created_at: start + 5, content: 'after the close' })
  const raw = await connectRaw(t)
  raw.send(['REQ', 'closed', { authors: [alice.pubkey], limit: 0 }])
  await raw.receive(([type, id]) => type === 'EOSE' && id === 'closed', 'EOSE')
  raw.send(['CLOSE', 'closed'])
  raw.send(['REQ', 'open', { authors: [alice.pubkey], limit: 0 }])
  await raw.receive(([type, id]) => type === 'EOSE' && id === 'open', 'EOSE')
  await store(writer, unseen)
  await observer.event(unseen.id)
  await raw.receive(([type, id]) => type === 'EVENT' && id === 'open', 'the event on the open subscription')
  assert.equal(raw.messages.filter(([type, id]) => type === 'EVENT' && id === 'closed').length, 0)
})

test('same second: lowest id first', async t => {
  const relay = await connect(t)
  const alice = author()
  const second = now() - 10
  const events = Array.from({ length: 8 }, (_, n) => alice.sign({ created_at: second, content: `${n}` }))
  await store(relay, ...events)
  const found = await query(relay, { authors: [alice.pubkey] })
  assert.deepEqual(ids(found), sorted(ids(events)))
})

test('several filters are a union without repetition', async t => {
  const relay = await connect(t)
  const alice = author()
  const bob = author()
  const note = alice.sign({ content: 'note' })
  const article = alice.sign({ kind: 30023, tags: [['d', 'a']] })
  const stranger = bob.sign({ content: 'of somebody else' })
  const other = bob.sign({ kind: 7, content: '+', tags: [['e', note.id], ['p', alice.pubkey]] })
  await store(relay, note, article, stranger, other)
  const found = await query(
    relay,
    { authors: [alice.pubkey], kinds: [1] },
    { authors: [alice.pubkey] },
    { ids: [other.id] },
  )
  assert.deepEqual(sorted(ids(found)), sorted(ids([note, article, other])))
})

test('tag filters', async t => {
  const relay = await connect(t)
  const alice = author()
  const topic = `topic-${alice.pubkey.slice(0, 16)}`
  const one = alice.sign({ content: 'one', tags: [['t', topic], ['t', 'two-topics']] })
  const two = alice.sign({ content: 'two', tags: [['t', `${topic}-long`]] })
  const three = alice.sign({ content: 'three', tags: [['p', alice.pubkey], ['e', one.id]] })
  const four = alice.sign({ content: 'four', tags: [['topic', topic]] })
  await store(relay, one, two, three, four)
  assert.deepEqual(ids(await query(relay, { '#t': [topic] })), [one.id])
  assert.deepEqual(sorted(ids(await query(relay, { '#t': [topic, `${topic}-long`] }))), sorted(ids([one, two])))
  assert.deepEqual(ids(await query(relay, { '#e': [one.id], '#p': [alice.pubkey] })), [three.id])
  assert.deepEqual(await query(relay, { '#t': [topic], '#p': [alice.pubkey] }), [])
  assert.deepEqual(ids(await query(relay, { '#t': ['two-topics'], authors: [alice.pubkey] })), [one.id])
})

test('limit takes the newest; since and until are inclusive', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 1_000
  const events = Array.from({ length: 10 }, (_, n) => alice.sign({ created_at: start + n, content: `${n}` }))
  await store(relay, ...events)
  const contents = async filter => (await query(relay, { authors: [alice.pubkey], ...filter })).map(event => event.content)
  assert.deepEqual(await contents({ limit: 3 }), ['9', '8', '7'])
  assert.deepEqual(await contents({ since: start + 8 }), ['9', '8'])
  assert.deepEqual(await contents({ until: start + 1 }), ['1', '0'])
  assert.deepEqual(await contents({ since: start + 4, until: start + 6, limit: 2 }), ['6', '5'])
})

test('a newer replaceable event wins, in either order of arrival', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const [v1, v2, v3] = [1, 2, 3].map(n => alice.sign({ kind: 0, created_at: start + n, content: `{"name":"v${n}"}` }))
  await store(relay, v1)
  await store(relay, v3)
  await offer(relay, v2) // older than what is stored: whether that is an OK is the relay's choice
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey], kinds: [0] })), [v3.id])
  assert.deepEqual(await query(relay, { ids: [v1.id, v2.id] }), [])
})

test('an addressable event is replaced under its own d tag only', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const article = (d, n) => alice.sign({ kind: 30023, created_at: start + n, content: `${d}${n}`, tags: [['d', d]] })
  const [a1, a2, b1] = [article('a', 1), article('a', 2), article('b', 1)]
  await store(relay, a1, b1, a2)
  const found = await query(relay, { authors: [alice.pubkey], kinds: [30023] })
  assert.deepEqual(sorted(ids(found)), sorted(ids([a2, b1])))
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey], kinds: [30023], '#d': ['a'] })), [a2.id])
})

test('of two replaceable events of the same second the lower id stays', async t => {
  const relay = await connect(t)
  for (const order of ['lower first', 'lower last']) {
    const alice = author()
    const second = now() - 50
    const pair = [1, 2].map(n => alice.sign({ kind: 0, created_at: second, content: `{"name":"${n}"}` }))
    pair.sort((a, b) => (a.id < b.id ? -1 : 1))
    const [first, last] = order === 'lower first' ? pair : [pair[1], pair[0]]
    await store(relay, first)
    await offer(relay, last)
    assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey] })), [pair[0].id], order)
  }
})

test('an ephemeral event reaches a live subscriber and is not stored', async t => {
  const reader = await connect(t)
  const writer = await connect(t)
  const alice = author()
  const subscription = subscribe(reader, [{ authors: [alice.pubkey], kinds: [20001] }])
  await subscription.eose()
  const event = alice.sign({ kind: 20001, content: 'now or never' })
  await store(writer, event)
  await subscription.event(event.id)
  assert.deepEqual(await query(writer, { ids: [event.id] }), [])
  assert.deepEqual(await query(writer, { authors: [alice.pubkey] }), [])
})

test('an invalid REQ is answered by CLOSED or NOTICE, and the connection goes on', async t => {
  const bad = {
    'a filter that is not an object': ['REQ', 'bad', 'everything'],
    'ids that are not hex': ['REQ', 'bad', { ids: ['not hex'] }],
    'ids of the wrong length': ['REQ', 'bad', { ids: ['abcd'] }],
    'kinds that are not numbers': ['REQ', 'bad', { kinds: ['one'] }],
    'no filter': ['REQ', 'bad'],
    'not JSON': '["REQ","bad",{',
    'not an array': { REQ: 'bad' },
    'an unknown message': ['CONSTELLATION-UNKNOWN', 'bad', {}],
  }
  for (const [what, message] of Object.entries(bad)) {
    await t.test(what, async t => {
      const raw = await connectRaw(t)
      raw.send(message)
      const [type] = await raw.receive(
        ([type, id]) => type === 'NOTICE' || (type === 'CLOSED' && id === 'bad'),
        'CLOSED or NOTICE',
      )
      assert.ok(['NOTICE', 'CLOSED'].includes(type))
      raw.send(['REQ', 'good', { ids: ['0'.repeat(64)] }])
      await raw.receive(([type, id]) => (type === 'EOSE' || type === 'CLOSED') && id === 'good', 'EOSE for a good REQ')
      assert.equal(raw.messages.filter(([type, id]) => type === 'EVENT' && id === 'bad').length, 0)
    })
  }
})

test('a malformed event is refused without a word lost', async t => {
  const raw = await connectRaw(t)
  const event = JSON.parse(JSON.stringify(author().sign({ content: 'malformed' })))
  raw.send(['EVENT', { ...event, created_at: 'yesterday' }])
  await raw.receive(([type, id, ok]) => type === 'NOTICE' || (type === 'OK' && id === event.id && ok === false), 'OK false or NOTICE')
  raw.send(['EVENT', event])
  const [, , ok, reason] = await raw.receive(([type, id, ok]) => type === 'OK' && id === event.id && ok === true, 'OK for the genuine event')
  assert.ok(ok, reason)
})

// ------------------------------------------------------------------------- NIP-09, NIP-40, NIP-45

test('NIP-09: a deletion by id', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const gone = alice.sign({ created_at: start, content: 'to be deleted' })
  const kept = alice.sign({ created_at: start, content: 'to be kept' })
  const deletion = alice.sign({ kind: 5, created_at: start + 1, tags: [['e', gone.id], ['k', '1']] })
  await store(relay, gone, kept, deletion)
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey], kinds: [1] })), [kept.id])
  await assertRefused(relay, gone)
  assert.deepEqual(await query(relay, { ids: [gone.id] }), [])
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey], kinds: [5] })), [deletion.id])
})

test('NIP-09: a deletion that comes before its target', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const gone = alice.sign({ created_at: start, content: 'late and unwanted' })
  await store(relay, alice.sign({ kind: 5, created_at: start + 1, tags: [['e', gone.id]] }))
  await assertRefused(relay, gone)
  assert.deepEqual(await query(relay, { ids: [gone.id] }), [])
})

test('NIP-09: a deletion by address takes versions up to its time', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const article = (d, n) => alice.sign({ kind: 30023, created_at: start + n, content: `${d}${n}`, tags: [['d', d]] })
  const [a1, a2, a9, b1] = [article('a', 1), article('a', 2), article('a', 9), article('b', 1)]
  await store(relay, a2, b1)
  await store(relay, alice.sign({ kind: 5, created_at: start + 5, tags: [['a', `30023:${alice.pubkey}:a`]] }))
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey], kinds: [30023] })), [b1.id])
  await assertRefused(relay, a2)
  await assertRefused(relay, a1)
  await store(relay, a9)
  assert.deepEqual(sorted(ids(await query(relay, { authors: [alice.pubkey], kinds: [30023] }))), sorted(ids([a9, b1])))
})

test('NIP-09: nobody deletes the events of others', async t => {
  const relay = await connect(t)
  const alice = author()
  const mallory = author()
  const note = alice.sign({ content: 'mine' })
  const article = alice.sign({ kind: 30023, tags: [['d', 'mine']] })
  await store(relay, note, article)
  // whether the request itself is stored is the relay's choice
  await offer(relay, mallory.sign({ kind: 5, tags: [['e', note.id]] }))
  await offer(relay, mallory.sign({ kind: 5, tags: [['a', `30023:${alice.pubkey}:mine`]] }))
  assert.deepEqual(sorted(ids(await query(relay, { authors: [alice.pubkey] }))), sorted(ids([note, article])))
})

test('NIP-40: an expired event is refused, one that has time left is not', async t => {
  const relay = await connect(t)
  const alice = author()
  const expired = alice.sign({ created_at: now() - 100, tags: [['expiration', `${now() - 10}`]] })
  const lasting = alice.sign({ tags: [['expiration', `${now() + 3_600}`]] })
  await assertRefused(relay, expired)
  await store(relay, lasting)
  assert.deepEqual(ids(await query(relay, { authors: [alice.pubkey] })), [lasting.id])
})

test('NIP-45: COUNT equals what a REQ returns', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 100
  const notes = Array.from({ length: 7 }, (_, n) => alice.sign({ created_at: start + n, content: `${n}`, tags: [['t', n % 2 ? 'odd' : 'even']] }))
  const profile = alice.sign({ kind: 0, content: '{}' })
  await store(relay, ...notes, profile)
  const count = filter => within(DEADLINE_MS, relay.count([filter], {}), 'COUNT')
  for (const [filter, expected] of [
    [{ authors: [alice.pubkey] }, 8],
    [{ authors: [alice.pubkey], kinds: [1] }, 7],
    [{ authors: [alice.pubkey], '#t': ['odd'] }, 3],
    [{ authors: [alice.pubkey], since: start + 5, kinds: [1] }, 2],
    [{ authors: [author().pubkey] }, 0],
  ]) {
    assert.equal(await count(filter), expected, JSON.stringify(filter))
    assert.equal((await query(relay, filter)).length, expected, JSON.stringify(filter))
  }
})

// ---------------------------------------------------------------------- NIP-11, NIP-42 and NIP-70

test('NIP-11: the information document', async () => {
  const info = await within(DEADLINE_MS, fetchRelayInformation(RELAY), 'NIP-11 document')
  assert.equal(typeof info.name, 'string')
  assert.ok(info.name.length > 0)
  for (const nip of [1, 9, 11, 40, 42, 45, 62, 70, 77]) {
    assert.ok(info.supported_nips.includes(nip), `NIP-${nip} is not in supported_nips: ${info.supported_nips}`)
  }
  assert.equal(typeof info.limitation, 'object')
  for (const [key, value] of Object.entries(info.limitation)) {
    assert.ok(['number', 'boolean'].includes(typeof value), `limitation.${key} is ${JSON.stringify(value)}`)
  }
})

test('NIP-42 and NIP-70: a protected event is taken from its author only', async t => {
  const alice = author()
  const mallory = author()
  const event = alice.sign({ content: 'only by me', tags: [['-']] })

  const relay = await connect(t)
  assert.equal(await assertRefused(relay, event), 'auth-required')
  assert.deepEqual(await query(relay, { ids: [event.id] }), [])

  const thief = await connect(t)
  await offer(thief, event) // a challenge may come only now
  await within(DEADLINE_MS, thief.auth(async template => mallory.sign(template)), 'OK for AUTH')
  await assertRefused(thief, event)

  await within(DEADLINE_MS, relay.auth(async template => alice.sign(template)), 'OK for AUTH')
  await store(relay, event)
  assert.deepEqual(ids(await query(relay, { ids: [event.id] })), [event.id])
})

test('NIP-42: an AUTH for another challenge or another relay is refused', async t => {
  const alice = author()
  const attempts = {
    'another challenge': template => ({ ...template, tags: template.tags.map(tag => (tag[0] === 'challenge' ? ['challenge', 'not-the-one'] : tag)) }),
    'another relay': template => ({ ...template, tags: template.tags.map(tag => (tag[0] === 'relay' ? ['relay', 'wss://relay.example/'] : tag)) }),
    'an old date': template => ({ ...template, created_at: now() - 86_400 }),
  }
  for (const [what, spoil] of Object.entries(attempts)) {
    await t.test(what, async t => {
      const relay = await connect(t)
      const event = alice.sign({ content: what, tags: [['-']] })
      await assertRefused(relay, event)
      const answer = relay.auth(async template => alice.sign(spoil(template))).then(
        () => true,
        () => false,
      )
      assert.equal(await within(DEADLINE_MS, answer, 'OK for AUTH'), false)
      assert.ok(['auth-required', 'restricted'].includes(await assertRefused(relay, event)))
    })
  }
})

// ---------------------------------------------------------------------------------------- NIP-77

/** Reconciles these events with what the relay has for the filter; nostr-tools does the work. */
async function reconcile(relay, filter, ours) {
  const storage = new nip77.NegentropyStorageVector()
  for (const event of ours) storage.insert(event.created_at, event.id)
  storage.seal()
  const have = new Set()
  const need = new Set()
  let rounds = 0
  let sync
  const done = new Promise((resolve, reject) => {
    sync = new nip77.NegentropySync(relay, storage, filter, {
      onhave: id => have.add(id),
      onneed: id => need.add(id),
      onclose: reason => (reason ? reject(new Error(reason)) : resolve()),
    })
    // nostr-tools reports NEG-ERR as if it were the end; and it never looks at CLOSED here
    const handle = sync.subscription.oncustom
    sync.subscription.oncustom = message => {
      if (message[0] === 'NEG-ERR') return reject(new Error(`NEG-ERR ${message[2]}`))
      if (message[0] === 'NEG-MSG') rounds += 1
      handle(message)
    }
  })
  sync.start()
  await within(DEADLINE_MS * 2, done, 'the end of the reconciliation')
  return { have: sorted(have), need: sorted(need), rounds }
}

/** `count` events over `seconds`, of which both know `shared`, and each some of its own. */
function divided(alice, count, { spread, ours, theirs }) {
  const start = now() - 100_000
  const all = Array.from({ length: count }, (_, n) =>
    alice.sign({ created_at: start + Math.floor(n / spread), content: `${n}` }),
  )
  return {
    all,
    onlyOurs: all.filter((_, n) => n % ours === 1),
    onlyTheirs: all.filter((_, n) => n % theirs === 2),
  }
}

for (const [name, count, shape] of [
  ['a few', 12, { spread: 1, ours: 4, theirs: 5 }],
  ['hundreds, spread out', 300, { spread: 1, ours: 41, theirs: 37 }],
  ['hundreds in few seconds', 300, { spread: 100, ours: 41, theirs: 37 }],
]) {
  test(`NIP-77: have and need are exact: ${name}`, async t => {
    const relay = await connect(t)
    const alice = author()
    const { all, onlyOurs, onlyTheirs } = divided(alice, count, shape)
    const [oursSet, theirsSet] = [new Set(ids(onlyOurs)), new Set(ids(onlyTheirs))]
    const both = all.filter(event => !oursSet.has(event.id) && !theirsSet.has(event.id))
    const isOurs = event => oursSet.has(event.id) && !theirsSet.has(event.id)
    const isTheirs = event => theirsSet.has(event.id) && !oursSet.has(event.id)
    const ours = [...both, ...all.filter(isOurs)]
    const theirs = [...both, ...all.filter(isTheirs)]
    await Promise.all(theirs.map(event => store(relay, event)))

    const filter = { authors: [alice.pubkey] }
    const first = await reconcile(relay, filter, ours)
    assert.deepEqual(first.have, sorted(ids(all.filter(isOurs))))
    assert.deepEqual(first.need, sorted(ids(all.filter(isTheirs))))

    // move what the difference says, and there is none left: in one answer
    const fetched = await query(relay, { ids: first.need })
    assert.deepEqual(sorted(ids(fetched)), first.need)
    await Promise.all(all.filter(isOurs).map(event => store(relay, event)))
    const second = await reconcile(relay, filter, [...ours, ...fetched])
    assert.deepEqual([second.have, second.need], [[], []])
    assert.equal(second.rounds, 1)
  })
}

test('NIP-77: an empty side', async t => {
  const relay = await connect(t)
  const alice = author()
  const events = Array.from({ length: 40 }, (_, n) => alice.sign({ created_at: now() - 100 - n, content: `${n}` }))
  const filter = { authors: [alice.pubkey] }
  assert.deepEqual((await reconcile(relay, filter, events)).have, sorted(ids(events)))
  await Promise.all(events.map(event => store(relay, event)))
  assert.deepEqual((await reconcile(relay, filter, [])).need, sorted(ids(events)))
})

test('NIP-77: the filter counts, and what is deleted or replaced is not in the set', async t => {
  const relay = await connect(t)
  const alice = author()
  const start = now() - 1_000
  const notes = Array.from({ length: 5 }, (_, n) => alice.sign({ created_at: start + n, content: `${n}` }))
  const [old, profile] = [1, 2].map(n => alice.sign({ kind: 0, created_at: start + n, content: `{"name":"${n}"}` }))
  const deletion = alice.sign({ kind: 5, created_at: start + 100, tags: [['e', notes[0].id]] })
  await store(relay, ...notes, old, profile, deletion)
  const need = async filter => (await reconcile(relay, { authors: [alice.pubkey], ...filter }, [])).need
  assert.deepEqual(await need({ kinds: [1] }), sorted(ids(notes.slice(1))))
  assert.deepEqual(await need({ kinds: [0] }), [profile.id])
  assert.deepEqual(await need({ kinds: [1], since: start + 3 }), sorted(ids(notes.slice(3))))
  assert.deepEqual(await need({ kinds: [1], until: start + 2 }), sorted(ids(notes.slice(1, 3))))
})

test('NIP-77: a message without an open session is answered by NEG-ERR', async t => {
  const raw = await connectRaw(t)
  raw.send(['NEG-MSG', 'never-opened', '6100000200'])
  const [, , reason] = await raw.receive(([type, id]) => type === 'NEG-ERR' && id === 'never-opened', 'NEG-ERR')
  assert.ok(prefixOf(reason), `the reason has no prefix: «${reason}»`)
})

test('NIP-77: an unknown version is answered by the version that the relay speaks', async t => {
  const raw = await connectRaw(t)
  raw.send(['NEG-OPEN', 'v', { ids: ['0'.repeat(64)] }, '62000002'])
  const [, , message] = await raw.receive(([type, id]) => type === 'NEG-MSG' && id === 'v', 'NEG-MSG')
  assert.equal(message, '61')
})

test('NIP-77: a malformed message ends the session with NEG-ERR, not the connection', async t => {
  for (const [what, message] of Object.entries({ 'not hex': 'xyz', 'cut short': '6100000105', empty: '' })) {
    await t.test(what, async t => {
      const raw = await connectRaw(t)
      raw.send(['NEG-OPEN', 'bad', { ids: ['0'.repeat(64)] }, message])
      await raw.receive(([type, id]) => (type === 'NEG-ERR' && id === 'bad') || type === 'NOTICE', 'NEG-ERR or NOTICE')
      raw.send(['NEG-OPEN', 'good', { ids: ['0'.repeat(64)] }, '6100000200'])
      await raw.receive(([type, id]) => type === 'NEG-MSG' && id === 'good', 'NEG-MSG for a good NEG-OPEN')
    })
  }
})
