#!/usr/bin/env bash
# Every figure of docs/BENCHMARKS.md, side by side with what it is compared to, in one run.
#
# Takes about ten minutes, a quarter of an hour and 15 GB with --million; build times are not counted. Figures of a
# machine that does something else at the time are worth nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
events=200000
for argument in "$@"; do
    [ "$argument" = --million ] && events=1000000
done

cargo build --locked --profile dist
cargo build --locked --release --manifest-path benches/nostr-lmdb/Cargo.toml --target-dir target/nostr-lmdb

echo "== Verification: batches beside libsecp256k1 one by one"
cargo bench --locked --package constellation-event

echo "== The store, and reconciling beside the negentropy crate's vectors"
cargo bench --locked --package constellation-eventstore -- open ids reconcile write \
    --batch 16000 --batch 32000 --events "$events" --folder "$folder/store"
rm -rf "$folder/store"

echo "== The product"
target/dist/constellation bench --keep "$folder/product" "$@"

echo "== Tunnels, beside kubo's if tests/interop/install.sh has installed it"
cargo bench --locked --bench tunnels -- --constellation target/dist/constellation

echo "== Writing without verifying, by nostr-lmdb"
target/nostr-lmdb/release/nostr-lmdb-bench "$folder/product/uniform.jsonl"
