"""Tests of the demo model's tools: python test_demo.py"""

import random
import unittest
import unittest.mock
from pathlib import Path

import torch

import composed
import evaluate
import phrases
from dialogue import Dialogue
from model import Config, PowerCoder
from retention import chunked, quadratic
from world import Encoder, Speaker, render

TOKENIZER = Path(__file__).parent / "checkpoint" / "tokenizer.model"
TINY = Config(vocab_size=2048, hidden_size=32, intermediate_size=32, num_hidden_layers=2, head_dim=16)


def random_inputs(t: int) -> tuple[torch.Tensor, ...]:
    """q [2, t, 4, 32], k and v [2, t, 2, 32], log_g [2, t, 2] in float64."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, t, heads, 32, dtype=torch.float64) for heads in (4, 2, 2))
    return q, k, v, torch.nn.functional.logsigmoid(3 * torch.randn(2, t, 2, dtype=torch.float64))


class RetentionTest(unittest.TestCase):
    def test_quadratic_is_the_definition(self) -> None:
        q, k, v, log_g = random_inputs(24)
        y = quadratic(q, k, v, log_g).view(2, 24, 4, 32)
        for t in (0, 11, 23):
            for head in range(4):
                scores = (k[:, : t + 1, head // 2] @ q[:, t, head, :, None]).squeeze(-1) / 32**0.5
                gates = log_g[:, : t + 1, head // 2]
                w = scores**2 * (gates.sum(1, keepdim=True) - gates.cumsum(1)).exp()
                expected = (w.unsqueeze(-1) * v[:, : t + 1, head // 2]).sum(1) / w.sum(1, keepdim=True)
                torch.testing.assert_close(y[:, t, head], expected)

    def test_chunked_equals_quadratic_across_calls(self) -> None:
        inputs = random_inputs(64)
        expected = quadratic(*inputs)
        for chunk in (1, 8, 32):
            first, state = chunked(*(x[:, :32] for x in inputs), chunk, keep_state=True)
            second, _ = chunked(*(x[:, 32:] for x in inputs), chunk, state)
            torch.testing.assert_close(torch.cat([first, second], 1), expected)


class ModelTest(unittest.TestCase):
    @torch.inference_mode()
    def test_rows_after_a_reset_are_rows_of_their_own(self) -> None:
        torch.manual_seed(2)
        model = PowerCoder(TINY).double().eval()
        ids = torch.randint(0, 2048, (1, 64))
        resets = torch.zeros(1, 64, dtype=torch.float64)
        resets[0, 24] = 1
        packed, _ = model(ids, resets=resets, chunk=16)
        torch.testing.assert_close(packed[:, 24:56], model(ids[:, 24:56])[0], rtol=1e-4, atol=1e-5)

    @torch.inference_mode()
    def test_answers_are_the_greedy_continuations(self) -> None:
        torch.manual_seed(3)
        model, encoder = PowerCoder(TINY).double().eval(), Encoder(TOKENIZER)
        before = torch.randint(0, 2048, (2, 64))
        prompts = [[9, 8, 7], [5, 6, 7, 8, 9, 10]]
        states = evaluate.advance(model, before, None, 0)
        texts = evaluate.answers(model, encoder, prompts, states, 64)
        for start, prompt, text in zip(before.tolist(), prompts, texts, strict=True):
            ids = start + prompt
            for _ in range(evaluate.ANSWER_TOKENS):
                ids.append(int(model.logits(model(torch.tensor([ids]))[0][0, -1]).argmax()))
            answer = ids[64 + len(prompt) :]
            answer = answer[: answer.index(encoder.end)] if encoder.end in answer else answer
            self.assertEqual(text, encoder.model.decode(answer))


class WorldTest(unittest.TestCase):
    def test_parts_encode_like_the_whole_text(self) -> None:
        rng = random.Random(4)
        encoder = Encoder(TOKENIZER)
        for evaluation in (False, True):
            speaker = Speaker(rng, evaluation, encoder)
            for message in Dialogue(speaker, rng, 4000).messages:
                ids = encoder.model.encode(message.text)
                self.assertEqual(encoder.message(message)[0][1:-1], ids)
                self.assertEqual(encoder.model.decode(ids), message.text)

    def test_no_held_out_phrasing_is_in_training_dialogues(self) -> None:
        templates = [t for kind in phrases.KINDS for some in (kind.tell, *(asked for asked, _ in kind.ask)) for t in some]
        wraps = [*phrases.UPDATES, *phrases.TELL_WRAPS, *phrases.ASK_WRAPS]
        held = {composed.words_of(text) for t in templates if t.startswith("~") for text in phrases.expansions(t[1:])}
        held |= {composed.words_of(text.replace("{}", "")) for t in wraps if t.startswith("~") and t.count(" ") > 2 for text in phrases.expansions(t[1:])}
        self.assertGreater(len(held), 80)
        rng, seen = random.Random(5), set()
        with unittest.mock.patch("world.render", side_effect=lambda template, *rest: seen.add(template) or render(template, *rest)):
            speaker = Speaker(rng, evaluation=False)
            for _ in range(200):
                Dialogue(speaker, rng, 2000)
        self.assertGreater(len(seen), 5000)
        lengths = {len(other) for other in held}
        for template in seen:
            some = composed.words_of(template)
            inside = {some[i : i + n] for n in lengths for i in range(len(some) - n + 1)}
            self.assertFalse(inside & held, template)

    def test_composed_phrasings_are_not_near_held_out_ones(self) -> None:
        self.assertTrue(composed.near("Please, which animal lives with me?", composed.held_out("pet")))
        self.assertTrue(composed.near("What number do I dial to reach {s}?", composed.held_out("phone")))
        self.assertFalse(composed.near("Which animal belongs to me?", composed.held_out("pet")))
        for kind in phrases.KINDS:
            held = composed.held_out(kind.name)
            lists = [composed.tells(kind.name, kind.subject), *(composed.asks(kind.name, kind.subject, i) for i in range(len(kind.ask)))]
            for text in (text for some in lists for texts in some for text in texts):
                self.assertGreater(min(composed.distance(composed.words_of(text), other) for other in held), 1, text)

    def test_talk_has_exactly_the_length_asked_for(self) -> None:
        speaker = Speaker(random.Random(6), evaluation=True, encoder=Encoder(TOKENIZER))
        for count in (24, 64, 255, 256, 1000, 5000):
            self.assertEqual(len(evaluate.talk(speaker, count)), count)


if __name__ == "__main__":
    unittest.main()
