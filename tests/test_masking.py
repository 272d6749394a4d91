"""Secrets and control characters do not leave the program, and other texts stay as they are."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from catalog_enrichment import cli, masking
from catalog_enrichment.cli import command
from catalog_enrichment.masking import masked, masked_content, printable, secrets_in

from .sample_catalog import build

PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEow' * 10}\n{'abc/+8' * 10}\n-----END RSA PRIVATE KEY-----\n"
KEY = "wJalrXUtnFEMI/K7MDENG"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:hunter2@mlflow.test/x", "https://***@mlflow.test/x"),
        ("postgresql://u:p@ss@db:5432/m failed", "postgresql://***@db:5432/m failed"),
        ("s3a://AKIA:abc%2Fdef@bucket/a@2x.jpg", "s3a://***@bucket/a@2x.jpg"),
        ("s3a://AKIA:sec/re+t/x@bucket/a@2x.jpg", "s3a://***@bucket/a@2x.jpg"),
        ("s3a://AKIA:sec/r@et@bucket/a@2x.jpg", "s3a://***@bucket/a@2x.jpg"),
        ("s3a://AKIA:123456/ab4@bucket", "s3a://***@bucket"),
        ("Authorization: Bearer abc.def-ghi==", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic ***'}"),
        ("proxy-authorization=abcdefgh", "proxy-authorization=***"),
        (json.dumps({"private_key": PEM, "n": 1}), '{"private_key": "***", "n": 1}'),
        (f"key:\n{PEM}.", "key:\n***\n."),
        (PEM[:60], "***"),
        ("GET /a.jpg?w=10&X-Amz-Signature=0af3&h=5", "GET /a.jpg?w=10&X-Amz-Signature=***&h=5"),
        ("?sv=2024&sig=a%2Bb%3D&se=1", "?sv=2024&sig=***&se=1"),
        ('{"token": "abc", "size": 3}', '{"token": "***", "size": 3}'),
        ("{'fs.s3a.secret.key' = 'abc'}", "{'fs.s3a.secret.key' = '***'}"),
        ("password=abc; AWS_SECRET_ACCESS_KEY=def", "password=***; AWS_SECRET_ACCESS_KEY=***"),
        ("apiKey=abc db_passwd=x account.key=y", "apiKey=*** db_passwd=*** account.key=***"),
        ("https://hooks.example/services/T000/B000/XXXX failed", "https://hooks.example/*** failed"),
        ("{'to': 'HTTPS://HOOKS.SLACK.COM:443/services/T0/B0/x'}", "{'to': 'HTTPS://HOOKS.SLACK.COM:443/***'}"),
        ("https://a.webhook.office.com/webhookb2/1@2/IncomingWebhook/3", "https://a.webhook.office.com/***"),
        ("https://discord.test/api/webhooks/12/ab-C?wait=1", "https://discord.test/api/webhooks/***?wait=1"),
        ("https://chat.test/hooks/abcdefgh12345678z", "https://chat.test/hooks/***"),
        ("https://api.telegram.test/bot123456:AAF-x_y/sendMessage", "https://api.telegram.test/bot***"),
        ("ALERT_WEBHOOK_URL=https://chat.test/x", "ALERT_WEBHOOK_URL=***"),
    ],
)
def test_secrets_are_masked_in_their_place(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.test/a@2x.jpg", "mail me@example.test", "tokenizer=wordpiece, max_tokens=3",
        "no password was given", "key = product_id", "signed by a secretary", "https://host/x?w=1",
        "the signature differs", "http://host:8080/a@2x.jpg", "http://[::1]:80/a@2x.jpg", "http://host/a:b/c@d",
        "authorization failed", "postgresql://h:5432/db?user=a@b", "https://cdn.test/hooks/coat-hook.jpg",
        "https://hooks.test/", "https://fishhooks.test/a/b.jpg", "https://cdn.test/wall-hooks/a.jpg",
        "https://cdn.test/bot12/a.jpg", "a webhook of Slack",
    ],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert masked(text) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        *("://a:b/", "secret", "token=", "authorization: bearer ", "://u:p@", "://x/"),
        *("https://", "https://hooks.", "https://a/webhook", "https://a/hooks/", "http://a.b.c."),
    ],
)
def test_a_megabyte_of_what_looks_like_a_secret_takes_no_hours(part: str) -> None:
    masked(part * (2**20 // len(part)))


def test_known_secrets_are_masked_wherever_they_are_the_longest_first() -> None:
    assert masked("a hunter2 and hunter22", {"hunter2", "hunter22"}) == "a *** and ***"


def test_the_secrets_of_a_config() -> None:
    content = {
        "mlflow": {"tracking_uri": "https://user:p%40ssword@mlflow.test"},
        "source": {"path": f"s3a://AKIA:{KEY.replace('/', '%2F')}@bucket/x", "labels": {"key": "product_id"}},
        "spark": {"conf": {"fs.azure.account.key.x": "azure-key", "fs.s3a.secret.key": "s3-key", "spark.x": "kept"}},
        "list": ["https://cdn.test/?sig=signed-it", "https://token-only@git.test", "http://u:short@h"],
        "lineage": {"url": "https://hooks.test/services/T0/B0/x"},
    }
    assert secrets_in(content) == {
        "p%40ssword", "p@ssword", KEY, KEY.replace("/", "%2F"), "azure-key", "s3-key", "signed-it", "token-only",
        "services/T0/B0/x",
    }  # fmt: skip
    shown = json.dumps(masked_content(content, secrets_in(content)))
    assert not [secret for secret in (*secrets_in(content), "short") if secret in shown]
    assert "kept" in shown
    assert "product_id" in shown


def test_the_secrets_of_the_running_job_are_masked_by_every_call_until_it_ends() -> None:
    secrets = {"from-environment"}
    with masking.masked_output(secrets):
        secrets.add("from-config")
        assert masked("from-environment, from-config, other", {"other"}) == "***, ***, ***"
    assert masked("from-config") == "from-config"


def test_a_secret_that_the_end_of_a_short_message_would_cut_is_masked() -> None:
    from catalog_enrichment import failures

    with masking.masked_output({"from-config"}):
        recognised = failures.recognised(OSError(28, "No space left on device " + "x" * 280 + "from-config"))
    assert recognised is not None
    assert "from" not in str(recognised)


def test_a_secret_of_several_lines_is_known_in_every_form() -> None:
    content = {"gcs": {"private_key": PEM}, "header": {"Authorization": "Bearer from-config"}}
    secrets = secrets_in(content)
    for text in (PEM, json.dumps(content), f"sent Bearer from-config, line {PEM.splitlines()[1]} of it"):
        shown = masked(text, secrets)
        assert "MIIEow" not in shown
        assert "abc/+8" not in shown
        assert "from-config" not in shown
    assert secrets_in("s3a://AKIA:sec/ret-word@bucket") == {"sec/ret-word"}
    odd = "from\\config'\t\""
    for text in (f"rejected: {json.dumps(odd)}", f"rejected: {[odd]}"):
        assert "config" not in masked(text, secrets_in({"token": odd}))


def test_plain_data_keeps_its_numbers_and_shapes() -> None:
    content = {"token": 5, "n": [1, 2.5, None, True], "api_key": "abc", "text": "x"}
    assert masked_content(content) == content | {"api_key": "***"}


def test_a_message_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from catalog_enrichment.monitoring.stages import to_stderr

    assert printable("a\x1b[31mb\x07c\rd\u202ee\x9bf\ud800g") == "a?[31mb?c?d?e?f?g"
    assert printable("über\tçok\n日本 🙂") == "über\tçok\n日本 🙂"
    to_stderr("shop \x1b]0;owned\x07")
    assert capsys.readouterr().err == "shop ?]0;owned?\n"


@pytest.mark.parametrize(
    ("problem", "code"),
    [(ValueError, 1), (OSError, 1), (MemoryError, 2), ("ConfigError", 2), ("GateRefused", 3), ("TemporaryFailure", 4)],
)
def test_no_exit_code_prints_a_secret_of_the_config_the_environment_or_the_message(
    problem: Any, code: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from catalog_enrichment import errors

    sample = build(tmp_path / "sample")
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_PASSWORD", "from-environment")
    kind = getattr(errors, problem) if isinstance(problem, str) else problem

    def fails(*_: Any) -> dict[str, Any]:
        """A job that fails, and prints before."""
        print("library says from-config", file=sys.stderr)
        print("library says from-config")
        raise kind("from-config, from-environment, https://u:from-message@h/?X-Amz-Signature=from-query \x1b[2J")

    job = command.job()(fails)
    setting = "spark.conf={'spark.hadoop.fs.s3a.secret.key' = 'from-config'}"
    assert job(["--config", str(sample.file), "--set", setting]) == code
    printed = capsys.readouterr()
    for secret in ("from-config", "from-environment", "from-message", "from-query", "\x1b"):
        assert secret not in printed.out + printed.err
    summary = json.loads(printed.out.splitlines()[-1])
    assert summary["exit_code"] == code
    assert "***" in summary["message"]
    assert "library says ***" in printed.err
    assert sys.stdout is not None
    assert not isinstance(sys.stdout, masking._Masked)


@pytest.mark.parametrize(
    "setting",
    [
        "catalog.storage.aws_secret_access_key=8472910475",  # TOML reads a number
        "catalog.path='s3a://AKIA:from-config@bucket/catalog'",
        "mlflow.tracking_uri=['https://u:from-config@h']",
        "spark.conf={'fs.s3a.secret.key' = 'from-config'",
        "password=from-config",
        "nonsense.https://u:from-config@h",
        "catalog.storage.aws_secret_access_key=['from-config']",
        "catalog.storage.aws_secret_access_key={value = 'from-config'}",
    ],
)
def test_a_config_that_cannot_be_used_does_not_print_its_secrets(
    setting: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = build(tmp_path / "sample")
    assert cli.enrich_catalog(["--config", str(sample.file), "--set", setting]) == 2
    printed = capsys.readouterr()
    assert "from-config" not in printed.out + printed.err
    assert "8472910475" not in printed.out + printed.err
    assert not setting.endswith("=8472910475") or "must be of type str, not a int (not shown)" in printed.out
