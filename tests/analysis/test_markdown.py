"""What people wrote stays text in Markdown."""

from __future__ import annotations

import pytest

from analysis.markdown import code_block, escaped


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("max_num_seqs=64, p99_ttft_ms at 16 QPS <= 2000", "max_num_seqs=64, p99_ttft_ms at 16 QPS <= 2000"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a & b &amp; c", "a & b &amp;amp; c"),
        ("a|b `c` *d* [e](f)", r"a\|b \`c\` \*d\* \[e\](f)"),
        (r"$\frac{ of $5", r"\$\frac{ of \$5"),
        (r"a\*b C:\dir", r"a\\\*b C:\dir"),
        ("__init__ _x", r"\_\_init\_\_ \_x"),
        ("~~gone~~", r"\~\~gone\~\~"),
        ("two\nlines\x1b", r"two\nlines\x1b"),
        ("# a heading", r"\# a heading"),
        ("> a quote", r"\> a quote"),
        ("- an item", r"\- an item"),
        ("1. an item", r"1\. an item"),
        ("---", r"\---"),
        ("-5 and 1.5", "-5 and 1.5"),
    ],
)
def test_what_would_act_is_escaped_and_nothing_else(text: str, written: str) -> None:
    assert escaped(text) == written


def test_fence_is_longer_than_any_in_text() -> None:
    assert code_block("vllm serve x") == "```bash\nvllm serve x\n```"
    assert code_block("a\n```\nb").startswith("````bash\n")
    assert code_block("a\n```\nb").endswith("\n````")
