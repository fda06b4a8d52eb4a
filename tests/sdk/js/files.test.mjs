// Files and directories through the JavaScript SDK.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { FileNotFoundError, FileType, InvalidArgumentError } from 'e2b'
import { shared } from './box.mjs'

const holder = shared()

test('text', async () => {
  const { files } = holder.sandbox
  const info = await files.write('text/today.txt', 'grüße\n')
  assert.deepEqual([info.name, info.path], ['today.txt', '/home/user/text/today.txt'])
  assert.equal(await files.read('text/today.txt'), 'grüße\n')
})

test('an empty file', async () => {
  const { files } = holder.sandbox
  await files.write('empty', '')
  assert.equal(await files.read('empty'), '')
  assert.equal((await files.read('empty', { format: 'bytes' })).length, 0)
})

for (const useOctetStream of [true, false]) {
  test(`bytes in every form, octet stream: ${useOctetStream}`, async () => {
    const { files } = holder.sandbox
    const data = randomBytes(2_000_001)
    await files.write('blob', new Blob([data]), { useOctetStream })
    assert.ok(data.equals(Buffer.from(await files.read('blob', { format: 'bytes' }))))
    const blob = await files.read('blob', { format: 'blob' })
    assert.ok(data.equals(Buffer.from(await blob.arrayBuffer())))
    const pieces = []
    for await (const piece of await files.read('blob', { format: 'stream' })) pieces.push(piece)
    assert.ok(data.equals(Buffer.concat(pieces)))
  })
}

test('an array buffer and a stream', async () => {
  const { files } = holder.sandbox
  await files.write('buffer', new TextEncoder().encode('buffer').buffer)
  assert.equal(await files.read('buffer'), 'buffer')
  await files.write('stream', new Blob(['stream']).stream())
  assert.equal(await files.read('stream'), 'stream')
})

test('gzip both ways', async () => {
  const { files } = holder.sandbox
  const text = 'compressible '.repeat(50_000)
  await files.write('zipped', text, { gzip: true, useOctetStream: true })
  assert.equal(await files.read('zipped', { gzip: true }), text)
})

test('many files', async () => {
  const { files } = holder.sandbox
  const entries = Array.from({ length: 20 }, (_, index) => ({ path: `many/${index}.txt`, data: `number ${index}` }))
  const infos = await files.write(entries)
  assert.deepEqual(infos.map((info) => info.path), entries.map((entry) => `/home/user/${entry.path}`))
  assert.equal(await files.read('many/7.txt'), 'number 7')
  assert.deepEqual(await files.write([]), [])
})

test('metadata', async () => {
  const { files } = holder.sandbox
  const metadata = { author: 'alice', purpose: 'upload' }
  assert.deepEqual((await files.write('meta', 'x', { metadata })).metadata, metadata)
  assert.deepEqual((await files.getInfo('meta')).metadata, metadata)
  await files.write('meta', 'y')
  assert.ok(!(await files.getInfo('meta')).metadata)
})

test('info', async () => {
  const { files } = holder.sandbox
  await files.write('info.txt', '12345')
  const info = await files.getInfo('info.txt')
  assert.deepEqual(
    [info.name, info.type, info.path, info.size, info.mode, info.permissions, info.owner, info.group],
    ['info.txt', FileType.FILE, '/home/user/info.txt', 5, 0o644, '-rw-r--r--', 'user', 'user'],
  )
  assert.ok(Math.abs(Date.now() - info.modifiedTime.getTime()) < 60_000)
})

test('list, deeper and deeper', async () => {
  const { files } = holder.sandbox
  await files.write('tree/a/deep/file', 'x')
  await files.write('tree/b', 'x')
  const names = async (depth) => (await files.list('tree', { depth })).map((entry) => entry.path.slice(16))
  assert.deepEqual(await names(1), ['a', 'b'])
  assert.deepEqual(await names(3), ['a', 'a/deep', 'a/deep/file', 'b'])
})

test('make, rename, exist, remove', async () => {
  const { files } = holder.sandbox
  assert.equal(await files.makeDir('made/deep'), true)
  assert.equal(await files.makeDir('made/deep'), false)
  await files.write('made/old', 'x')
  assert.equal((await files.rename('made/old', 'made/new')).path, '/home/user/made/new')
  assert.deepEqual([await files.exists('made/old'), await files.exists('made/new')], [false, true])
  await files.remove('made')
  assert.equal(await files.exists('made'), false)
})

test('refusals', async () => {
  const { files } = holder.sandbox
  await assert.rejects(files.read('missing'), FileNotFoundError)
  await assert.rejects(files.list('missing'), FileNotFoundError)
  await assert.rejects(files.getInfo('missing'), FileNotFoundError)
  await assert.rejects(files.rename('missing', 'anywhere'), FileNotFoundError)
  await files.makeDir('folder')
  await assert.rejects(files.write('folder', 'x'), InvalidArgumentError)
})

test('signed URLs', async () => {
  const { files } = holder.sandbox
  await files.write('signed.txt', 'signed content')
  const url = await holder.sandbox.downloadUrl('signed.txt', { user: 'user', useSignatureExpiration: 120 })
  assert.equal(await (await fetch(url)).text(), 'signed content')
  const form = new FormData()
  form.append('file', new Blob(['from a form']), 'up.txt')
  const up = await holder.sandbox.uploadUrl('up.txt')
  assert.equal((await fetch(up, { method: 'POST', body: form })).status, 200)
  assert.equal(await files.read('up.txt'), 'from a form')
  const late = await holder.sandbox.downloadUrl('signed.txt', { user: 'user', useSignatureExpiration: -120 })
  const refused = await fetch(late)
  assert.equal(refused.status, 401)
  assert.deepEqual(await refused.json(), { code: 401, message: 'signature is already expired' })
})
