// Watching directories through the JavaScript SDK.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FilesystemEventType, NotFoundError, SandboxError } from 'e2b'
import { shared, until } from './box.mjs'

const holder = shared()

test('changes are told until the watcher stops', async () => {
  const { files } = holder.sandbox
  await files.makeDir('plain')
  const events = []
  const handle = await files.watchDir('plain', (event) => events.push(event))
  await files.write('plain/new', 'x')
  const seen = (type, name) => until(() => events.some((event) => event.type === type && event.name === name))
  await seen(FilesystemEventType.CREATE, 'new')
  await seen(FilesystemEventType.WRITE, 'new')
  await files.rename('plain/new', 'plain/other')
  await seen(FilesystemEventType.RENAME, 'new')
  await files.remove('plain/other')
  await seen(FilesystemEventType.REMOVE, 'other')
  await handle.stop()
})

test('recursive watching sees folders that come later', async () => {
  const { files } = holder.sandbox
  await files.makeDir('deep')
  const events = []
  const handle = await files.watchDir('deep', (event) => events.push(event.name), { recursive: true })
  await files.makeDir('deep/new')
  await files.write('deep/new/file', 'x')
  await until(() => events.includes('new/file'))
  await handle.stop()
})

test('the end of the stream is told', async () => {
  const { files } = holder.sandbox
  await files.makeDir('timed')
  let ended = false
  await files.watchDir('timed', () => {}, { timeoutMs: 500, onExit: () => (ended = true) })
  await until(() => ended)
})

test('refusals', async () => {
  const { files } = holder.sandbox
  await assert.rejects(files.watchDir('missing', () => {}), NotFoundError)
  await files.write('file', 'x')
  await assert.rejects(files.watchDir('file', () => {}), SandboxError)
})
