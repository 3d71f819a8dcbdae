"""Drawing with DalleBart: one code at a time for many pictures at once, each at its own position.

Source: as `dalle_bart.py`; what is kept between steps is our own:
- Keys and values of a prompt are computed once, of its real tokens only, and all its pictures share them. (Both
  originals compute them at every step, for all 64 tokens and every picture: in Mega ten times the rest of the step.)
- Keys and values of the codes so far stand in one preallocated cache, a *row* per sequence; a guided picture has two,
  the second reading the unconditional prompt. Attention reads it up to the furthest position of those that are stepped.
- A step is the same few tensor operations however many pictures there are. What depends only on which pictures they
  are is computed when that changes (`Plan`).

A picture's logits do not depend on what else is drawn: on the CPU (AVX512, float32 and bfloat16, one or more threads)
to the last bit (tests/models/test_dalle_decode.py). That was measured, and so were its conditions, kept here: products
of at least 4 rows, a prompt's queries in multiples of 4, keys in multiples of `key_step`, no fused attention kernel.
Parity, and with `DalleBart.forward`: tests/parity/test_dalle_bart.py.

Shapes: N pictures, R rows, P groups of rows that read one prompt, T text length, S codes, D width, H heads, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .attention import attend, padding_bias
from .dalle_bart import LAYER_NORM_EPS, DalleBart, DecoderLayer
from .dalle_cache import Prompt, PromptPool, Row, RowCache, group_by_prompt, key_step, round_up
from .packed import pack, product

LEAST_ROWS = 4  # in a product: below, MKL takes other kernels, with other last bits


@dataclass(eq=False)
class DecoderSlot:
    """One picture being drawn: its row and, if guided, the row of the unconditional prompt."""

    rows: tuple[Row, ...]

    @property
    def position(self) -> int:
        """Codes fed so far, the start token among them."""
        return self.rows[0].position


@dataclass(frozen=True, eq=False)
class SavedSlot:
    """A slot outside the cache; `SlotDecoder.restore` makes it a slot again."""

    prompts: tuple[Prompt, ...]
    position: int
    kept: tuple[Tensor, ...]  # for each row (L, 2, H, position, D / H)


@dataclass(eq=False)
class Plan:
    """What follows from the set of slots alone. Here R counts the rows, and idle ones up to LEAST_ROWS."""

    slots: list[DecoderSlot]
    rows: list[Row]
    guided: bool  # any of them
    slot_of_row: Tensor  # (R,) which of the N codes a row is fed
    positions: Tensor  # (R,) moves on with every step
    write_at: Tensor  # (rows, 2, H) where in a layer's flattened cache a row's position 0 stands, for k and v of a head
    read: Tensor | None  # (P * queries,) rows in the order of their groups, some idle; None if they stand so anyway
    back: Tensor | None  # (R,) the inverse
    prompts: Tensor  # (L, 2, P, H, T, D / H) keys and values
    text_bias: Tensor  # (P, 1, 1, T)
    out: Tensor  # (2N,) rows of the unconditional logits, then of the conditional; (N,) if nothing is guided


class PackedLayer:
    """A decoder layer's weights as a step wants them."""

    def __init__(self, layer: DecoderLayer):
        own, cross, glu = layer.self_attn, layer.encoder_attn, layer.glu
        self.norms, self.heads = layer, own.heads
        self.qkv, self.own_out = pack(own.q_proj, own.k_proj, own.v_proj), pack(own.out_proj)
        self.cross_q, self.cross_out = pack(cross.q_proj), pack(cross.out_proj)
        self.cross_kv = pack(cross.k_proj, cross.v_proj)
        self.glu_in, self.glu_out = pack(glu.fc0, glu.fc1), pack(glu.fc2)

    def attend_codes(self, x: Tensor, cache: Tensor, write_at: Tensor, bias: Tensor) -> Tensor:
        """x (R, D) plus attention to its own codes; cache (2, rows, H, S, D / H), bias (R, 1, 1, keys)."""
        width = x.shape[1]
        qkv = self.qkv(self.norms.pre_self_attn_layer_norm(x))  # (R, 3D)
        q = qkv[:, :width].view(len(x), self.heads, 1, -1)  # (R, H, 1, D / H)
        cache.view(-1, cache.shape[-1])[write_at] = qkv[: len(write_at), width:].view(*write_at.shape, -1)
        k, v = cache[:, : len(x), :, : bias.shape[-1]]  # (R, H, keys, D / H)
        a = attend(q, k, v, bias)  # (R, H, 1, D / H)
        return x + cast(Tensor, self.norms.self_attn_layer_norm(self.own_out(a.reshape(-1, width))))  # (R, D)

    def attend_text(self, x: Tensor, keys_values: Tensor, plan: Plan) -> Tensor:
        """x (R, D) plus attention to its prompt; keys_values (2, P, H, T, D / H)."""
        width = x.shape[1]
        q = self.cross_q(self.norms.pre_encoder_attn_layer_norm(x))  # (R, D)
        if plan.read is not None:
            q = q.index_select(0, plan.read)  # (P * queries, D)
        q = rearrange(q, "(p n) (h d) -> p h n d", p=keys_values.shape[1], h=self.heads)
        a = attend(q, keys_values[0], keys_values[1], plan.text_bias)  # (P, H, queries, D / H)
        a = a.transpose(1, 2).reshape(-1, width)  # (P * queries, D)
        if plan.back is not None:
            a = a.index_select(0, plan.back)  # (R, D)
        return x + cast(Tensor, self.norms.encoder_attn_layer_norm(self.cross_out(a)))

    def glu(self, x: Tensor) -> Tensor:
        gate, value = self.glu_in(self.norms.glu.ln0(x)).chunk(2, dim=1)  # (R, inner) each
        return x + self.glu_out(self.norms.glu.ln1(F.gelu(gate) * value))  # (R, D)


class SlotDecoder:
    """The decoder of a DalleBart, stepping any of up to `capacity` rows; a guided slot takes two.

    The weights are taken over as they are when it is made, on their device and in their type (see `pack`). Logits are
    float32 in any case. Each row takes 2 * L * S * D numbers of memory.
    """

    def __init__(self, model: DalleBart, capacity: int):
        self.config, self.side, self.capacity, self.used = model.config, model.decoder, capacity, 0
        self.layers = [PackedLayer(cast(DecoderLayer, layer)) for layer in model.decoder.layers]
        self.head = product(model.lm_head.weight.detach().float())
        self.final_bias = model.decoder.final_ln.bias.detach().float()
        self.dtype, self.device = model.decoder.final_ln.bias.dtype, model.decoder.final_ln.bias.device
        self.keys = key_step(model.config.d_model // model.config.decoder_attention_heads)
        self.cache = RowCache(self._empty(max(capacity, LEAST_ROWS), model.config.image_length))
        self.pool = PromptPool(self._empty(0, model.config.max_text_length))
        self.plan: Plan | None = None

    def _empty(self, places: int, length: int) -> Tensor:
        heads, width = self.config.decoder_attention_heads, self.config.d_model
        shape = (len(self.layers), 2, places, heads, round_up(length, self.keys), width // heads)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @property
    def free(self) -> int:
        """Rows that can still be admitted."""
        return self.capacity - self.used

    @torch.inference_mode()
    def prompt(self, states: Tensor, attention_mask: Tensor) -> Prompt:
        """What the decoder reads of one prompt: encoder states (T, D), real where attention_mask (T,) is true."""
        states = states[attention_mask]  # (T, D)
        pairs = torch.stack([layer.cross_kv(states) for layer in self.layers])  # (L, T, 2D)
        heads = self.config.decoder_attention_heads
        return Prompt(rearrange(pairs, "l t (two h d) -> l two h t d", two=2, h=heads).contiguous())

    def admit(self, prompt: Prompt, unconditional: Prompt | None = None) -> DecoderSlot:
        """A new picture, guided if an unconditional prompt is given. The first code to feed it is the start token.

        Raises:
            ValueError: too few rows are free.
        """
        prompts = (prompt,) if unconditional is None else (prompt, unconditional)
        if len(prompts) > self.free:
            raise ValueError(f"{len(prompts)} rows wanted, {self.free} of {self.capacity} are free")
        self.used += len(prompts)
        return DecoderSlot(tuple(Row(prompt) for prompt in prompts))

    def release(self, slot: DecoderSlot) -> None:
        """Give a slot's rows back, whether it is finished or not; it cannot be stepped any more."""
        for row in slot.rows:
            self.cache.drop(row)
        self.used -= len(slot.rows)
        slot.rows, self.plan = (), None

    @torch.inference_mode()
    def save(self, slot: DecoderSlot) -> SavedSlot:
        """A copy of a slot, which itself stays."""
        kept = tuple(self.cache.take(row) for row in slot.rows)
        return SavedSlot(tuple(row.prompt for row in slot.rows), slot.position, kept)

    @torch.inference_mode()
    def restore(self, saved: SavedSlot) -> DecoderSlot:
        """A new slot that goes on where the saved one was; ValueError when too few rows are free."""
        slot = self.admit(*saved.prompts)
        for row, kept in zip(slot.rows, saved.kept, strict=True):
            row.position = saved.position
            self.cache.put(row, kept)
        return slot

    @torch.inference_mode()
    def step(self, slots: Sequence[DecoderSlot], codes: Tensor) -> tuple[Tensor, Tensor]:
        """Feed each slot its next code.

        Args:
            slots: N different slots, each at its own position.
            codes: (N,) int64; at first the start token, later what was drawn.

        Returns:
            Logits of the code that follows, unconditional and conditional, each (N, V) float32; the same for a slot
            without guidance.

        Raises:
            ValueError: a slot twice, a released one, or one that has all its codes.
        """
        if self.plan is None or self.plan.slots != list(slots):
            self.plan = self._make_plan(slots)
        plan = self.plan
        furthest = max(row.position for row in plan.rows)
        if furthest >= self.config.image_length:
            raise ValueError(f"a picture has {self.config.image_length} codes, and a slot has been fed all")
        x = self.side.embed_tokens(codes.index_select(0, plan.slot_of_row)) + self.side.embed_positions(plan.positions)
        x = self.side.layernorm_embedding(x)  # (R, D)
        keys = torch.arange(round_up(furthest + 1, self.keys), device=x.device)
        bias = padding_bias(keys <= plan.positions[:, None], x.dtype)  # (R, 1, 1, keys)
        write_at = plan.write_at + plan.positions[: len(plan.rows), None, None]  # (rows, 2, H)
        for layer, cache, prompts in zip(self.layers, self.cache.keys_values, plan.prompts, strict=True):
            x = layer.attend_codes(x, cache, write_at, bias)
            x = layer.attend_text(x, prompts, plan)
            x = layer.glu(x)
        plan.positions += 1
        for row in plan.rows:
            row.position += 1
        x = x.index_select(0, plan.out).float()  # (2N or N, D), or LEAST_ROWS
        logits = self.head(F.layer_norm(x, self.final_bias.shape, None, self.final_bias, LAYER_NORM_EPS))  # (.., V)
        count = len(slots)
        return (logits[:count], logits[count : 2 * count]) if plan.guided else (logits[:count], logits[:count])

    def _make_plan(self, slots: Sequence[DecoderSlot]) -> Plan:
        if len({id(slot) for slot in slots}) < len(slots) or not all(slot.rows for slot in slots):
            raise ValueError("each slot can be stepped once at a time, until it is released")
        guided = any(len(slot.rows) > 1 for slot in slots)
        wanted = [slot.rows[0] for slot in slots] + [slot.rows[1] for slot in slots if len(slot.rows) > 1]
        groups, queries = group_by_prompt(wanted)
        self.cache.bring_to_front([row for _, part in groups for row in part])
        groups = [groups[i] for i in self.pool.stack([prompt for prompt, _ in groups])]

        count = max(len(wanted), LEAST_ROWS)
        slot_of_row, positions, back = [0] * count, [0] * count, [0] * count
        for n, slot in enumerate(slots):
            for row in slot.rows:
                slot_of_row[row.at], positions[row.at] = n, row.position
        for p, (_, part) in enumerate(groups):
            for n, row in enumerate(part):
                back[row.at] = p * queries + n
        read = [part[n].at if n < len(part) else 0 for _, part in groups for n in range(queries)]
        aligned = read == list(range(count))
        out = [slot.rows[-1].at for slot in slots] + ([slot.rows[0].at for slot in slots] if guided else [])
        length = round_up(max(prompt.length for prompt, _ in groups), self.keys)
        _, places, heads, codes, _ = self.cache.keys_values.shape[1:]
        heads_at = self._ids(range(2 * places * heads)).view(2, places, heads)[:, : len(wanted)] * codes
        lengths = self._ids([prompt.length for prompt, _ in groups])
        return Plan(
            slots=list(slots),
            rows=wanted,
            guided=guided,
            slot_of_row=self._ids(slot_of_row),
            positions=self._ids(positions),
            write_at=heads_at.transpose(0, 1),
            read=None if aligned else self._ids(read),
            back=None if aligned else self._ids(back),
            prompts=self.pool.keys_values[:, :, : len(groups), :, :length],
            text_bias=padding_bias(self._ids(range(length)) < lengths[:, None], self.dtype),
            out=self._ids(out + [0] * (LEAST_ROWS - len(out))),
        )

    def _ids(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.device)
