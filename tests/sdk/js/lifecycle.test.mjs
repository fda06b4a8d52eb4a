// The life of a sandbox through the JavaScript SDK.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import {
  AuthenticationError,
  NotFoundError,
  Sandbox,
  SandboxError,
  TimeoutError,
} from 'e2b'
import { fresh, template, until } from './box.mjs'

test('create and info', async (t) => {
  const sandbox = await fresh(t, { timeoutMs: 100_000, metadata: { agent: 'alice' }, envs: { KEPT: 'yes' } })
  const info = await sandbox.getInfo()
  assert.deepEqual(
    [info.sandboxId, info.state, info.name, info.metadata],
    [sandbox.sandboxId, 'running', template, { agent: 'alice' }],
  )
  const seconds = (info.endAt - info.startedAt) / 1000
  assert.ok(98 <= seconds && seconds <= 101)
  assert.equal((await sandbox.commands.run('echo $KEPT')).stdout, 'yes\n')
})

test('time limits', async (t) => {
  const sandbox = await fresh(t)
  await sandbox.setTimeout(500_000)
  const later = (await sandbox.getInfo()).endAt
  await sandbox.setTimeout(30_000)
  assert.ok(later - (await sandbox.getInfo()).endAt > 460_000)
  await sandbox.setTimeout(0)
  await until(async () => !(await sandbox.isRunning()), 3000)
})

test('connect', async (t) => {
  const sandbox = await fresh(t)
  await sandbox.files.write('shared.txt', 'left here')
  const other = await Sandbox.connect(sandbox.sandboxId)
  assert.equal(await other.files.read('shared.txt'), 'left here')
})

test('network', async (t) => {
  const everywhere = '0.0.0.0/0'
  const sandbox = await fresh(t, { network: { allowOut: ['api.example.com'], denyOut: [everywhere] } })
  const shown = (await sandbox.getInfo()).network
  assert.deepEqual([shown.allowOut, shown.denyOut], [['api.example.com'], [everywhere]])
  await sandbox.updateNetwork({ allowInternetAccess: false })
  const info = await sandbox.getInfo()
  assert.deepEqual([info.network.allowOut, info.allowInternetAccess], [undefined, false])
  const refused = sandbox.updateNetwork({ allowOut: ['api.example.com'] })
  await assert.rejects(refused, /you must include 'ALL_TRAFFIC' in deny out/)
})

test('kill', async (t) => {
  const sandbox = await fresh(t)
  assert.deepEqual([await sandbox.kill(), await sandbox.kill(), await sandbox.isRunning()], [true, false, false])
  await assert.rejects(sandbox.getInfo(), NotFoundError)
  await assert.rejects(sandbox.commands.run('true'), /not running|was not found/)
})

test('a command ends with its sandbox', async (t) => {
  const sandbox = await fresh(t)
  const handle = await sandbox.commands.run('sleep 100', { background: true })
  const ended = assert.rejects(handle.wait(), TimeoutError)
  await sandbox.kill()
  await ended
})

test('refusals', async () => {
  await assert.rejects(Sandbox.create(template, { apiKey: `e2b_${'0'.repeat(40)}` }), AuthenticationError)
  await assert.rejects(Sandbox.create('no-such-template'), SandboxError)
  await assert.rejects(Sandbox.create(template, { timeoutMs: 1e12 }), SandboxError)
  await assert.rejects(Sandbox.connect('i00000000000000000000'), NotFoundError)
  assert.equal(await Sandbox.kill('i00000000000000000000'), false)
})

test('list: metadata of any shape, pages, order, state', async (t) => {
  const mark = randomUUID()
  const metadata = { mark, 'a b': 'c&d=100%' }
  const made = []
  for (let number = 0; number < 3; number += 1) made.push((await fresh(t, { metadata })).sandboxId)
  const all = async (query, options = {}) => {
    const paginator = Sandbox.list({ query: { metadata, ...query }, ...options })
    const rows = []
    while (paginator.hasNext) rows.push(...(await paginator.nextItems()))
    return rows.map((row) => row.sandboxId)
  }
  assert.deepEqual(await all({}, { limit: 1 }), made.toReversed())
  await Sandbox.pause(made[0])
  assert.deepEqual(await all({ state: ['paused'] }), [made[0]])
  assert.deepEqual(await all({ state: ['running'] }, { limit: 1 }), [made[2], made[1]])
  assert.deepEqual(await all({ metadata: { mark, 'a b': 'other' } }), [])
})

test('pause and connect', async (t) => {
  const sandbox = await fresh(t)
  const handle = await sandbox.commands.run('sleep 600', { background: true })
  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.pause(), false)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal((await sandbox.getInfo()).state, 'paused')
  await sandbox.connect()
  assert.equal(await sandbox.isRunning(), true)
  assert.deepEqual((await sandbox.commands.list()).map((process) => process.pid), [handle.pid])
})

test('pauses when its time is up and wakes when called', async (t) => {
  const sandbox = await fresh(t, { timeoutMs: 1000, lifecycle: { onTimeout: 'pause', autoResume: true } })
  await until(async () => (await sandbox.getInfo()).state === 'paused')
  assert.equal((await sandbox.commands.run('echo awake')).stdout, 'awake\n')
  assert.equal((await sandbox.getInfo()).state, 'running')
})

test('metrics', async (t) => {
  const sandbox = await fresh(t)
  const [sample] = await until(async () => {
    const samples = await sandbox.getMetrics()
    return samples.length > 0 && samples
  }, 15_000)
  assert.deepEqual([sample.cpuCount, sample.memTotal], [1, 512 * 1024 * 1024])
  assert.ok(sample.memUsed > 0)
})
