// Secrets through the JavaScript SDK.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { AuthenticationError, Secret, SecretError, SecretNotFoundError } from 'e2b'

const unique = () => `key-${randomBytes(4).toString('hex')}`

test('a secret lives its life', async () => {
  const name = unique()
  const made = await Secret.create(name.toUpperCase(), 'sk-first', { metadata: { team: 'search' } })
  assert.deepEqual([made.name, made.version, made.metadata], [name, 1, { team: 'search' }])
  assert.match(made.secretId, /^sec_/)

  const second = await Secret.update(name, 'sk-second')
  assert.deepEqual([second.secretId, second.version, second.metadata], [made.secretId, 2, { team: 'search' }])
  assert.deepEqual(await Secret.getInfo(made.secretId), second)
  assert.equal(await Secret.exists(name), true)
  assert.equal(await Secret.destroy(name), true)
  assert.equal(await Secret.destroy(name), false)
  assert.equal(await Secret.exists(name), false)
  await assert.rejects(Secret.update(name, 'sk-third'), SecretNotFoundError)
})

test('the list is read page by page', async () => {
  const names = [unique(), unique(), unique()].sort()
  for (const name of names) await Secret.create(name, 'x')

  const found = []
  const pages = Secret.list({ limit: 2 })
  while (pages.hasNext) found.push(...(await pages.nextItems()))

  assert.deepEqual(found.map((one) => one.name).filter((name) => names.includes(name)), names)
  for (const name of names) await Secret.destroy(name)
})

test('mistakes are told', async () => {
  await assert.rejects(Secret.create('a b', 'x'), SecretError)
  await assert.rejects(Secret.create(unique(), 'x\r\ny'), SecretError)
  await assert.rejects(Secret.getInfo(unique(), { apiKey: `e2b_${'0'.repeat(40)}` }), AuthenticationError)
})
