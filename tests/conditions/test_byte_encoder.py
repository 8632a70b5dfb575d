import pytest
import torch

from dreamwalk.conditions.byte_encoder import END, NO_WORD, ByteEncoder, ByteEncoderConfig, indices


@pytest.fixture(scope="module")
def letters() -> ByteEncoder:
    torch.manual_seed(0)
    return ByteEncoder(ByteEncoderConfig(width=32, heads=2, max_length=40, pooled_dim=6)).double()


def test_symbols_and_their_words() -> None:
    symbols, word, read = indices(["Ab  c", ""], 40)
    assert symbols.tolist() == [[*b"ab c", END], [END, 0, 0, 0, 0]]
    assert word.tolist() == [[0, 0, NO_WORD, 1, 2], [0, *[NO_WORD] * 4]]
    assert read.sum(1).tolist() == [5, 1]


def test_a_token_for_each_word_and_one_for_the_end(letters: ByteEncoder) -> None:
    words = letters(["walk through a brick hall", "turn left", ""])
    assert words.tokens.shape == (3, 6, 32)
    assert words.mask is not None and words.mask.sum(1).tolist() == [6, 3, 1]
    assert words.mask[:, 0].all()
    assert words.pooled is not None and words.pooled.shape == (3, 6)
    assert letters(["brick", "stone"]).mask is None
    assert letters([""]).tokens.shape == (1, 1, 32)


def test_a_text_means_the_same_in_any_batch(letters: ByteEncoder) -> None:
    texts = ["walk through a brick hall", "turn left", ""]
    together = letters(texts)
    for row, text in enumerate(texts):
        alone = letters([text])
        n = alone.tokens.shape[1]
        torch.testing.assert_close(alone.tokens[0], together.tokens[row, :n], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(alone.pooled[0], letters.to_pooled(alone.tokens[0].mean(0)))


def test_case_and_spaces_make_no_difference_but_order_and_letters_do(letters: ByteEncoder) -> None:
    plain = letters(["turn left, then go"]).tokens
    assert torch.equal(letters([" TURN  left,\tthen go\n"]).tokens, plain)
    for other in ("left, turn then go", "turn left then go.", "turn left, then so"):
        assert (letters([other]).tokens - plain).abs().max() > 1e-2


def test_bytes_are_counted_and_refused(letters: ByteEncoder) -> None:
    assert letters(["é" * 20]).tokens.shape[1] == 2
    with pytest.raises(ValueError, match=r"42 bytes and 40 are read: shorten 'é"):
        letters(["é" * 21])


def test_it_learns_to_tell_texts_apart() -> None:
    texts = ["left", "right", "left left", "", "go left at the wall"]
    torch.manual_seed(1)
    wanted = torch.randn(len(texts), 6)
    model = ByteEncoder(ByteEncoderConfig(width=16, depth=1, heads=2, pooled_dim=6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        loss = (model(texts).pooled - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * wanted.square().mean()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused
