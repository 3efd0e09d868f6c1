"""Secrets stay out of what the worker writes."""

from __future__ import annotations

import pytest

from tonnage_worker.redaction import redact, secret_values

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("environment", "arguments", "secret"),
    [
        ({"HF_TOKEN": "plain-value-1"}, (), "plain-value-1"),
        ({"hf_token": "plain-value-1"}, (), "plain-value-1"),
        ({"AWS_SECRET_ACCESS_KEY": "abc/def+ghi"}, (), "abc/def+ghi"),
        ({"VLLM_API_KEY": "secret-1"}, (), "secret-1"),
        ({"DB_PASSWORD": "hunter2"}, (), "hunter2"),
        ({}, ("--model", "m", "--api-key", "topsecret1", "topsecret2"), "topsecret2"),
        ({}, ("--api-key=topsecret1",), "topsecret1"),
        ({}, (), TOKEN),
        ({}, (), "sk-0123456789abcdef"),
    ],
)
def test_is_masked(environment: dict[str, str], arguments: tuple[str, ...], secret: str) -> None:
    text = redact(f"failed with <{secret}>", secrets=secret_values(environment, arguments=arguments))
    assert text == "failed with <[redacted]>"


def test_a_bearer_header_and_a_password_in_an_address_are_masked() -> None:
    text = redact("Authorization: Bearer abc.def, https://user:pass@host/x", secrets=())
    assert text == "Authorization: Bearer [redacted], https://[redacted]@host/x"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"TOKENIZERS_PARALLELISM": "falsehood"}, "falsehood"),  # the word is TOKENIZERS, not TOKEN
        ({"HF_TOKEN": "1"}, "1 of 1"),
        ({"MODEL": "smollm2"}, "smollm2"),
    ],
)
def test_is_left_alone(environment: dict[str, str], text: str) -> None:
    assert redact(text, secrets=secret_values(environment)) == text


def test_arguments_after_a_secret_flag_end_with_the_next_flag() -> None:
    assert secret_values({}, arguments=("--api-key", "topsecret", "--model", "/models/smollm2")) == {
        "topsecret"
    }


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    assert redact("longsecret", secrets={"secret", "longsecret"}) == "[redacted]"
