// Commands and terminals through the JavaScript SDK.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  AuthenticationError,
  CommandExitError,
  InvalidArgumentError,
  NotFoundError,
  TimeoutError,
} from 'e2b'
import { shared, template } from './box.mjs'

const holder = shared()

test('output and exit code', async () => {
  const result = await holder.sandbox.commands.run('echo out; echo err >&2')
  assert.deepEqual([result.exitCode, result.stdout, result.stderr], [0, 'out\n', 'err\n'])
})

test('a failing command throws with its output', async () => {
  await assert.rejects(holder.sandbox.commands.run('echo before; exit 7'), (error) => {
    assert.ok(error instanceof CommandExitError)
    assert.deepEqual([error.exitCode, error.stdout], [7, 'before\n'])
    return true
  })
})

test('callbacks hear both streams', async () => {
  let out = ''
  let err = ''
  await holder.sandbox.commands.run('echo 1; echo 2 >&2; printf "ünï ☃"', {
    onStdout: (text) => (out += text),
    onStderr: (text) => (err += text),
  })
  assert.deepEqual([out, err], ['1\nünï ☃', '2\n'])
})

test('user, directory and variables', async () => {
  const { commands } = holder.sandbox
  assert.equal((await commands.run('id -un; pwd')).stdout, 'user\n/home/user\n')
  assert.equal((await commands.run('pwd; echo $A', { cwd: '/tmp', envs: { A: 'x y' } })).stdout, '/tmp\nx y\n')
})

test('root is there in a container and refused in a jail', async () => {
  const call = holder.sandbox.commands.run('id -u', { user: 'root' })
  if (template === 'base-process') await assert.rejects(call, AuthenticationError)
  else assert.equal((await call).stdout, '0\n')
})

test('refusals', async () => {
  const { commands } = holder.sandbox
  await assert.rejects(commands.run('id', { user: 'mallory' }), AuthenticationError)
  await assert.rejects(commands.run('pwd', { cwd: '/no/where' }), InvalidArgumentError)
  await assert.rejects(commands.connect(999_999), NotFoundError)
  await assert.rejects(commands.sendStdin(999_999, 'x'), NotFoundError)
  assert.equal(await commands.kill(999_999), false)
})

test('a time limit', async () => {
  const began = Date.now()
  await assert.rejects(holder.sandbox.commands.run('sleep 30', { timeoutMs: 1000 }), TimeoutError)
  assert.ok(Date.now() - began < 5000)
})

test('a background command: listed, fed, heard, ended', async () => {
  const { commands } = holder.sandbox
  const handle = await commands.run('cat', { background: true, stdin: true })
  assert.ok((await commands.list()).some((process) => process.pid === handle.pid))
  await commands.sendStdin(handle.pid, 'hello ')
  await commands.sendStdin(handle.pid, 'world\n')
  await commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'hello world\n')
  assert.ok(!(await commands.list()).some((process) => process.pid === handle.pid))
})

test('kill', async () => {
  const { commands } = holder.sandbox
  const handle = await commands.run('sleep 600', { background: true })
  assert.equal(await handle.kill(), true)
  await assert.rejects(handle.wait(), CommandExitError)
  assert.equal(await commands.kill(handle.pid), false)
})

test('disconnect and connect again', async () => {
  const { commands } = holder.sandbox
  const handle = await commands.run('read line; echo got $line', { background: true, stdin: true })
  await handle.disconnect()
  const again = await commands.connect(handle.pid)
  await commands.sendStdin(handle.pid, 'it\n')
  assert.equal((await again.wait()).stdout, 'got it\n')
})

test('much output arrives whole and in order', async () => {
  const expected = Array.from({ length: 100_000 }, (_, index) => `${index + 1}\n`).join('')
  assert.equal((await holder.sandbox.commands.run('seq 1 100000')).stdout, expected)
})

test('twenty commands at once', async () => {
  const numbers = Array.from({ length: 20 }, (_, index) => index)
  const results = await Promise.all(numbers.map((number) => holder.sandbox.commands.run(`echo ${number}`)))
  assert.deepEqual(results.map((result) => result.stdout), numbers.map((number) => `${number}\n`))
})

test('a terminal: type, resize, see', async () => {
  const { pty } = holder.sandbox
  let seen = ''
  const decoder = new TextDecoder()
  const terminal = await pty.create({ cols: 80, rows: 24, onData: (data) => (seen += decoder.decode(data)) })
  await pty.resize(terminal.pid, { cols: 132, rows: 50 })
  await pty.sendInput(terminal.pid, new TextEncoder().encode('stty size; echo $((6*7)); exit\n'))
  assert.equal((await terminal.wait()).exitCode, 0)
  assert.match(seen, /50 132/)
  assert.match(seen, /42/)
})

test('a terminal: connect again, kill', async () => {
  const { pty } = holder.sandbox
  let seen = ''
  const decoder = new TextDecoder()
  const terminal = await pty.create({ cols: 80, rows: 24, onData: () => {} })
  await pty.sendInput(terminal.pid, new TextEncoder().encode('FOO=kept\n'))
  await terminal.disconnect()
  const again = await pty.connect(terminal.pid, { onData: (data) => (seen += decoder.decode(data)) })
  await pty.sendInput(terminal.pid, new TextEncoder().encode('echo still-$FOO; exit\n'))
  await again.wait()
  assert.match(seen, /still-kept/)
  assert.equal(await pty.kill(terminal.pid), false)
})
