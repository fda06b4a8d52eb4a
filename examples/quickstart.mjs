// A sandbox from its first to its last moment, with the unchanged E2B SDK.
//
// Set E2B_API_KEY, E2B_API_URL and E2B_SANDBOX_URL as `make run` printed them, then in this folder:
//
//     npm install && node quickstart.mjs

import { Sandbox } from 'e2b'

const ANALYSIS = `\
import statistics

sales = {"January": 120, "February": 180, "March": 240}
for month, amount in sales.items():
    print(f"{month:<10}{amount:>5}", flush=True)
with open("/home/user/report.txt", "w") as report:
    report.write(f"mean: {statistics.mean(sales.values())}\\n")
`

// The sandbox ends by itself after 300 seconds, should this program never come to its end.
const sandbox = await Sandbox.create({ timeoutMs: 300_000 })
console.log(`sandbox ${sandbox.sandboxId} is running`)
try {
  await sandbox.files.write('/home/user/analysis.py', ANALYSIS)

  // Output arrives while the program runs, not when it is done.
  const result = await sandbox.commands.run('python3 /home/user/analysis.py', {
    timeoutMs: 30_000,
    onStdout: (text) => process.stdout.write(text),
    onStderr: (text) => process.stderr.write(text),
  })
  console.log(`exit code ${result.exitCode}`)

  for (const entry of await sandbox.files.list('/home/user')) {
    console.log(`${String(entry.size).padStart(8)}  ${entry.path}`)
  }
  process.stdout.write(await sandbox.files.read('/home/user/report.txt'))

  // Ten minutes from now, whatever was left before.
  await sandbox.setTimeout(600_000)

  // A terminal: programs see a screen of 80 columns, and both output streams are one.
  const terminal = await sandbox.pty.create({
    rows: 24,
    cols: 80,
    timeoutMs: 30_000,
    onData: (data) => process.stdout.write(data),
  })
  await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('echo columns: $(tput cols); exit\n'))
  await terminal.wait()
} finally {
  // True: it was there and is gone now.
  console.log(`killed: ${await sandbox.kill()}`)
}
