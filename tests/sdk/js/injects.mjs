// One sandbox whose requests to a host carry a secret and an identity, until its rules are taken away.

import { Sandbox, Secret } from 'e2b'

const host = process.argv[2]
const sandbox = await Sandbox.create('base', {
  timeoutMs: 120_000,
  iam: { tokens: { aws: Secret.iamToken({ audience: 'sts.allowed.test', tokenType: 'JWT-SVID' }) } },
  network: {
    rules: {
      [host]: [
        {
          transform: ({ iam }) => ({
            headers: { Authorization: `Bearer ${Secret.fill('api-key')}`, 'X-Identity': iam.tokens.aws },
          }),
        },
      ],
    },
  },
})
try {
  const { stdout } = await sandbox.commands.run(`curl -sS --max-time 20 https://${host}/x; env`)
  await sandbox.updateNetwork({})
  await sandbox.commands.run(`curl -sSk --max-time 20 https://${host}/x`)
  console.log(JSON.stringify({ hasSecret: stdout.includes('sk-alices') }))
} finally {
  await sandbox.kill()
}
