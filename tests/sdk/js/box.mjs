// What the test files share: the template they run on, one sandbox a file, and sandboxes that end with their test.

import { after, before } from 'node:test'
import { Sandbox } from 'e2b'

export const template = process.env.GATEHOUSE_TEST_TEMPLATE ?? 'base'

// Returns a holder whose `sandbox` all tests of the file share.
export function shared() {
  const holder = { sandbox: undefined }
  before(async () => {
    holder.sandbox = await Sandbox.create(template, { timeoutMs: 600_000 })
  })
  after(() => holder.sandbox.kill())
  return holder
}

// Returns a sandbox that is gone after the test `t`.
export async function fresh(t, options = {}) {
  const sandbox = await Sandbox.create(template, { timeoutMs: 120_000, ...options })
  t.after(() => sandbox.kill())
  return sandbox
}

// Returns when `condition` holds; throws what it last gave when it does not in time.
export async function until(condition, withinMs = 5000) {
  const deadline = Date.now() + withinMs
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not in time: ${value}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
