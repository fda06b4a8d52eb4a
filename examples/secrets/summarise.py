"""Code in a sandbox asks a model for a summary, with a key that it never has.

Set E2B_API_KEY, E2B_API_URL and E2B_SANDBOX_URL as `make run` printed them, and write the secret `openai-key` once
(`docs/howto/use-scoped-tokens.md`). Then, with the E2B SDK (`pip install e2b`):

    .venv/bin/python examples/secrets/summarise.py
"""

from e2b import Sandbox
from scoped_secrets import ScopedSecretProvider, environment

# The model vendor's own package works as well: it reads the same two variables.
AGENT = """\
import json, os, urllib.request

question = {
    "model": "gpt-4o-mini",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Say in one sentence what a sandbox is."}],
}
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    data=json.dumps(question).encode(),
    headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=60) as answer:
    print(json.load(answer)["choices"][0]["message"]["content"])
"""


def main() -> None:
    """Create a sandbox, give it a token, run the agent, and show what it wrote."""
    provider = ScopedSecretProvider()
    with Sandbox.create(timeout=300) as sandbox:
        sandbox.files.write("/home/user/agent.py", AGENT)
        token = provider.get_token(
            sandbox.sandbox_id,
            "openai-key",
            allowed_apis=["openai/chat/completions"],
            params={"model": ["gpt-4o-mini"], "max_tokens": 200},
        )
        print(f"a token until {token['expires_at']}")
        print(sandbox.commands.run("python3 /home/user/agent.py", envs=environment(token)).stdout)


if __name__ == "__main__":
    main()
