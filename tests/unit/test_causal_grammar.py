"""What a model may write under a contract's grammar: whatever it writes is an answer that the contract allows."""

from __future__ import annotations

import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from suffice.core.contracts import covers
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import decode, plain
from suffice.specialists.causal_grammar import check_grammar, forcing, grammar_of, pattern_of, schema_of, unkept

llguidance = pytest.importorskip("llguidance", reason="the extra llm is not installed")

PATTERNS = ("", r"^\d{4}-\d{2}$", r"^[A-Z][\w-]*$", r"[^\s]", r"^(?:yes|no)$", r"\d", r"^[^\d\"]{,3}$")

names = st.sampled_from(["a", "b", "city", "größe", 'q"'])
labels = st.lists(st.sampled_from(["x", "yy", "a b", "ü", '"', "\\"]), min_size=1, max_size=4, unique=True).map(tuple)
limits = st.tuples(st.integers(0, 3), st.none() | st.integers(1, 9))
scalars = st.lists(
    st.sampled_from(["on", "off", "", 1, 2.5, -3, True, False, None]), min_size=1, max_size=4, unique_by=repr
).map(tuple)
leaves = st.one_of(
    st.builds(Choice, scalars),
    st.builds(lambda values, ends: Choices(values, *ends), labels, limits),
    st.builds(Number, st.booleans(), st.none() | st.integers(-20, 3), st.none() | st.integers(0, 2000)),
    st.builds(lambda ends, pattern: Span(ends[0], ends[1], pattern), limits, st.sampled_from(PATTERNS)),
    st.builds(lambda ends, pattern: Text(ends[0], ends[1], pattern), limits, st.sampled_from(PATTERNS)),
)


def objects(inner: st.SearchStrategy[OutputContract]) -> st.SearchStrategy[Fields]:
    return st.dictionaries(names, inner, max_size=4).flatmap(
        lambda fields: st.builds(
            Fields,
            st.just(tuple(fields.items())),
            st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True).map(tuple) if fields else st.just(()),
        )
    )


contracts = st.recursive(
    leaves,
    lambda inner: st.one_of(objects(inner), st.builds(lambda of, ends: Many(of, *ends), inner, limits)),
    max_leaves=6,
)
calls = st.builds(
    lambda tools, none: ToolCall(tuple(tools.items()), none),
    st.dictionaries(st.sampled_from(["light", "stop now"]), objects(leaves), min_size=1, max_size=2),
    st.booleans(),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE({char: at for at, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<end>", special=True)])
    return llguidance.LLTokenizer(made.to_str(), eos_token=made.token_to_id("<end>"))


def some_text(tokenizer: Any, grammar: str, dice: random.Random) -> str | None:
    """A text that the grammar allows, byte after byte at random; None where it is none yet after 400."""
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    written: list[int] = []
    near_the_end = [tokenizer.tokenize_str(sign)[0] for sign in '"]}1,']
    for _ in range(400):
        if (matcher.is_accepting() and dice.random() < 0.5) or matcher.is_stopped():
            return str(tokenizer.decode_bytes(written).decode("utf-8"))
        mask = matcher.compute_logit_bias()
        allowed = [token for token in range(tokenizer.vocab_size - 1) if mask[token]]
        if not allowed:
            assert matcher.is_accepting(), matcher.get_error()
            return str(tokenizer.decode_bytes(written).decode("utf-8"))
        ending = [token for token in near_the_end if mask[token]]
        written.append(dice.choice(ending if ending and dice.random() < 0.4 else allowed))
        assert matcher.consume_token(written[-1])
    return None


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(contract=contracts | calls, seed=st.integers(0, 1000))
def test_whatever_is_written_under_a_contract_keeps_to_it(contract: OutputContract, seed: int, tokenizer: Any) -> None:
    try:
        schema = schema_of(contract)
        assume(schema is not None)
        assert schema is not None
        check_grammar(grammar_of(schema))
    except ValueError as error:
        assert re.fullmatch(r"[^\n]{20,400}", str(error))
        return
    text = some_text(tokenizer, grammar_of(schema), random.Random(seed))
    if text is None:
        return
    value = decode(text)
    jsonschema.validate(value, schema)
    assert covers(contract, plain(value)), text


@pytest.mark.parametrize(
    ("contract", "text"),
    [
        (Fields((("city", Span()), ("n", Number(whole=True)))), '{"city":"Boston","n":3}'),
        (Fields((("city", Span()), ("n", Number(whole=True)))), '{"n":3}'),
        (Fields((("city", Span()), ("n", Number(whole=True)))), "{}"),
        (Fields((("on", Choice((True, False, None))),)), '{"on":true}'),
        (Choice(("a", "b c")), '"b c"'),
        (Choices(("x", "y")), '["y","x"]'),
        (Many(Fields((("slot", Choice(("a",))), ("text", Span())))), '[{"slot":"a","text":"Zoë 日本"}]'),
        (Text(most=20), '"said \\"so\\""'),
        (Number(least=0, most=1), "0.25"),
        (ToolCall((("f", Fields((("x", Number()),))),)), '{"tool_calls":[{"name":"f","arguments":{"x":-1.5}}]}'),
        (ToolCall((("f", Fields(())),), none_allowed=True), '{"tool_calls":[]}'),
        (Fields((("a", Span()), ("b", Span())), either=(Fields((("a", Span()),), ("a",)),)), '{"a":"x"}'),
    ],
)
def test_an_answer_of_the_contract_can_be_written(contract: OutputContract, text: str, tokenizer: Any) -> None:
    schema = schema_of(contract)
    assert schema is not None
    matcher = llguidance.LLMatcher(tokenizer, grammar_of(schema))
    tokens = tokenizer.tokenize_str(text)
    assert matcher.try_consume_tokens(tokens) == len(tokens)
    assert matcher.is_accepting()


@pytest.mark.parametrize(
    ("contract", "text"),
    [
        (Fields((("city", Span()),)), '{ "city":"x"}'),  # one way to write each answer: no white space
        (Fields((("city", Span()),)), '{"city":""}'),  # what is silent is left out
        (Fields((("a", Span()), ("b", Span()))), '{"b":"x","a":"y"}'),
        (Fields((("a", Choice(("x",))),)), "{}"),
        (Fields((("a", Span()), ("b", Span())), either=(Fields((("a", Span()),), ("a",)),)), '{"b":"x"}'),
        (Choices(("x", "y"), most=1), '["x","y"]'),
        (Span(), '"{\\"a\\":1}"'),  # a text by itself that would be read as JSON
        (Number(whole=True), "1.5"),
        (Span(pattern=r"^\d+$"), '"٣"'),  # digits are ASCII's, as everywhere here
    ],
)
def test_what_is_no_answer_cannot_be_written(contract: OutputContract, text: str, tokenizer: Any) -> None:
    schema = schema_of(contract)
    assert schema is not None
    matcher = llguidance.LLMatcher(tokenizer, grammar_of(schema))
    tokens = tokenizer.tokenize_str(text)
    assert not (matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def test_free_text_is_not_constrained() -> None:
    assert schema_of(Text()) is None
    assert unkept(Text()) is None


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        (Span(pattern=r"\bx"), "word boundary"),
        (Span(pattern=r"(?=a)b"), "look-around"),
        (Span(pattern=r"(a|b)\1"), "backreferences"),
        (Text(least=5, most=2), "minLength"),
        (Number(least=3, most=1), "minimum"),
        (Choice((None, "")), ""),
        (Fields((("a", Choice((None,))),), required=("a",)), "asks for a choice where there is none"),
        (ToolCall(()), "a call of a tool"),
    ],
)
def test_a_contract_that_cannot_be_kept_to_is_told_in_a_sentence(contract: OutputContract, said: str) -> None:
    found = unkept(contract)
    if said:
        assert found is not None
        assert said in found
        assert "\n" not in found
    else:
        assert found is None


@pytest.mark.parametrize(
    ("python", "text"),
    [
        (r"^[\w.]+@[\w-]+\.[a-z]{2,}$", "a.b@c-d.org"),
        (r"^a{,2}b$", "aab"),
        (r"^[]x]+$", "]x"),
        (r"^[[&~]+$", "[&~"),
        (r"^[\D]$", "x"),
        (r"\Aab\Z", "ab"),
        (r"^\<\>$", "<>"),
    ],
)
def test_patterns_mean_the_same_to_both(python: str, text: str, tokenizer: Any) -> None:
    assert re.search(python, text, re.ASCII)
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_regex(pattern_of(python).strip("^$")))
    tokens = tokenizer.tokenize_str(text)
    assert matcher.try_consume_tokens(tokens) == len(tokens)
    assert matcher.is_accepting()


def test_forced_tokens_are_all_that_is_allowed(tokenizer: Any) -> None:
    tokens = tokenizer.tokenize_str("ë!")
    matcher = llguidance.LLMatcher(tokenizer, forcing(tokens))
    assert matcher.try_consume_tokens([*tokens, tokens[0]]) == len(tokens)
    assert matcher.is_accepting()
