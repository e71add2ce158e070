// js-libp2p as a station of the constellation: dials one of ours, opens its relay's stream and reads from it.
//
//   node station.mjs identity SEED                     prints {"peer": PeerID}
//   node station.mjs read SEED MULTIADDR FILTER        prints {"peer", "events": [id…], "refused": null}
//
// SEED is 64 hexadecimal digits, from which the key is made. MULTIADDR ends in /p2p/<PeerID>. It publishes nothing.
// `refused` says how the stream was not opened, or was cut before the relay had answered; the exit code is then 3, for
// anything else that fails 1.

import { Duplex } from 'node:stream'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { WebSocket } from 'ws'

// js-libp2p is written for Node 22; this is all that it lacks in Node 20, Debian's.
Promise.withResolvers ??= function () {
  let settle
  const promise = new this((resolve, reject) => { settle = { resolve, reject } })
  return { promise, ...settle }
}

const DEADLINE_MS = 30_000
const REFUSED = 3

const [action, seed, address, filter] = process.argv.slice(2)
const privateKey = await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex'))
const node = await createLibp2p({
  privateKey,
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()]
})

/** A stream of libp2p as a socket of Node, which is what `ws` speaks over. */
function socketOf(stream) {
  const socket = new Duplex({
    read() { stream.resume() },
    write(chunk, _encoding, done) {
      try {
        if (stream.send(chunk)) done()
        else stream.onDrain().then(() => done(), done)
      } catch (error) {
        done(error)
      }
    },
    final(done) { stream.close().then(() => done(), done) },
    destroy(error, done) {
      stream.abort(error ?? new Error('done'))
      done(error)
    }
  })
  stream.addEventListener('message', ({ data }) => {
    if (!socket.push(Buffer.from(data.subarray()))) stream.pause()
  })
  stream.addEventListener('remoteCloseWrite', () => socket.push(null))
  stream.addEventListener('close', () => socket.destroy())
  return socket
}

/** A WebSocket through the stream, or the reason why there is none. */
function upgrade(stream, relay) {
  const socket = new WebSocket(`ws://${relay}.p2p/`, {
    createConnection: () => socketOf(stream),
    handshakeTimeout: DEADLINE_MS
  })
  return new Promise(resolve => {
    socket.once('open', () => resolve({ socket }))
    socket.once('error', error => resolve({ refused: error.message }))
  })
}

/** The ids of what the relay serves for the filter, up to EOSE. */
function read(socket) {
  return new Promise((resolve, reject) => {
    const events = []
    setTimeout(() => reject(new Error('no EOSE in time')), DEADLINE_MS).unref()
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('closed before EOSE')))
    socket.on('message', text => {
      const [kind, name, what] = JSON.parse(text)
      if (name !== 'all') return
      if (kind === 'EVENT') events.push(what.id)
      else if (kind === 'EOSE') resolve(events)
      else reject(new Error(`unexpected ${text}`))
    })
    socket.send(JSON.stringify(['REQ', 'all', JSON.parse(filter)]))
  })
}

function open(connection, relay) {
  const signal = AbortSignal.timeout(DEADLINE_MS)
  return connection.newStream(`/x/strfry-${relay}`, { signal }).then(
    stream => upgrade(stream, relay),
    error => ({ refused: error.message })
  )
}

async function main() {
  const peer = node.peerId.toString()
  if (action === 'identity') {
    console.log(JSON.stringify({ peer }))
    return 0
  }
  const relay = address.split('/').at(-1)
  const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(DEADLINE_MS) })
  const { socket, refused } = await open(connection, relay)
  if (refused) {
    console.log(JSON.stringify({ peer, events: [], refused }))
    return REFUSED
  }
  const events = await read(socket)
  socket.terminate()
  console.log(JSON.stringify({ peer, events, refused: null }))
  return 0
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
await node.stop()
// Streams that were cut off must not keep the process.
process.exit()
