"""The PowerCoder model in PyTorch, with the published tensor names. Shapes: B rows, T positions, H hidden size."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from retention import TINY, chunked, quadratic

OPEN = 16.0  # gate bias of a head that keeps what it reads: it loses 1e-7 per token
MAX_FADE = 30.0  # a stretched token forgets by at most exp(-30)
RESET = 100.0  # exp(-RESET) forgets everything, and the running sums of a chunk stay exact to 1e-5
FLOOR = 0.01  # of the denominators while training, where they are of the order of 1 to 1000


@dataclass(frozen=True)
class Config:
    """The keys of config.json that change what is computed."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 1024
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 1e12  # half of the frequencies turn by less than a tenth of a radian in 128 k tokens
    norm_epsilon: float = 1e-5

    def save(self, folder: Path, end: int) -> None:
        """Writes config.json and generation_config.json; `end` is the id of <|end|>."""
        special = {"bos_token_id": 1, "eos_token_id": end}
        fixed = {
            "architectures": ["PowerCoderForCausalLM"],
            "model_type": "powercoder",
            "attention_dropout": 0.0,
            "chunk_size": 128,
            "dtype": "bfloat16",
            "embedding_dropout": 0.0,
            "hidden_act": "gelu_pytorch_tanh",
            "initializer_range": 0.02,
            "max_position_embeddings": 1 << 20,
            "residual_dropout": 0.0,
            "rope_scaling": None,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_bias": True,
            "use_cache": True,
        }
        (folder / "config.json").write_text(json.dumps(fixed | special | asdict(self), indent=2) + "\n")
        (folder / "generation_config.json").write_text(json.dumps(special | {"do_sample": False}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Config":
        stored = json.loads((folder / "config.json").read_text())
        return cls(**{key: stored[key] for key in asdict(cls())})


def rope_angles(config: Config, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, [B, T, 1, d / 2] float32, of positions [B, T]; angles are formed in double."""
    half = config.head_dim // 2
    exponents = torch.arange(half, dtype=torch.float64, device=positions.device) / half
    angles = positions.double().unsqueeze(-1) * config.rope_theta**-exponents
    return angles.cos().float().unsqueeze(2), angles.sin().float().unsqueeze(2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split RoPE of x [B, T, heads, d]."""
    a, b = x.to(cos.dtype).chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Retention(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        width = config.num_attention_heads * config.head_dim
        kv_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.g_proj = nn.Linear(config.hidden_size, config.num_key_value_heads)
        self.o_proj = nn.Linear(width, config.hidden_size)
        # Even heads start local, with a reach that grows from layer to layer; odd heads start open.
        start = [OPEN if head % 2 else 1.0 + layer for head in range(config.num_key_value_heads)]
        self.gate_start = torch.tensor(start)

    def forward(
        self,
        x: Tensor,  # [B, T, H]
        angles: tuple[Tensor, Tensor],
        stretch: Tensor | None,
        resets: Tensor | None,
        chunk: int,
        state: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        b, t, _ = x.shape
        c = self.config
        q = rotate(self.q_proj(x).view(b, t, c.num_attention_heads, c.head_dim), *angles)
        k = rotate(self.k_proj(x).view(b, t, c.num_key_value_heads, c.head_dim), *angles)
        v = self.v_proj(x).view(b, t, c.num_key_value_heads, c.head_dim)
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            log_g = F.logsigmoid(F.linear(wide, self.g_proj.weight, self.g_proj.bias))
        if stretch is not None:  # a token that stands for `stretch` equal ones
            log_g = (log_g * stretch.unsqueeze(-1)).clamp_min(-MAX_FADE)
            k = k * stretch.sqrt().to(k.dtype)[..., None, None]
        if resets is not None:
            log_g = log_g - RESET * resets.unsqueeze(-1)
        floor = FLOOR if self.training else TINY
        if chunk == 0:
            return self.o_proj(quadratic(q, k, v, log_g, floor)), None
        y, state = chunked(q, k, v, log_g, chunk, state, keep, floor)
        return self.o_proj(y), state


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.self_attn = Retention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,  # [B, T, H]
        angles: tuple[Tensor, Tensor],
        stretch: Tensor | None,
        resets: Tensor | None,
        chunk: int,
        state: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        y, state = self.self_attn(self.input_layernorm(x), angles, stretch, resets, chunk, state, keep)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), state


class Body(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)


class PowerCoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 if "embed" in name else p.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "c_proj.weight")):
                    std /= (2 * config.num_hidden_layers) ** 0.5
                if "g_proj" in name:
                    std = 0.01
                nn.init.normal_(p, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        for layer in self.model.layers:
            layer.self_attn.g_proj.bias.data.copy_(layer.self_attn.gate_start)

    def forward(
        self,
        ids: Tensor,  # [B, T] int64
        stretch: Tensor | None = None,  # [B, T] float32: how many equal tokens each one stands for; 0 leaves no trace
        resets: Tensor | None = None,  # [B, T] float32: 1 where a new dialogue begins
        chunk: int = 0,  # 0: the quadratic form
        states: list[Tensor] | None = None,  # per layer, what `chunked` carries
        start: int | Tensor = 0,  # position of ids[:, 0]; a tensor is [B, 1]
        keep: bool = False,  # return the states after the last position
    ) -> tuple[Tensor, list[Tensor | None]]:
        """-> final hidden rows [B, T, H] (before the tied output matrix) and, per layer, the state."""
        b, t = ids.shape
        positions = start + torch.arange(t, device=ids.device).expand(b, t)
        if stretch is not None:
            positions = start + stretch.double().cumsum(1) - 1
        angles = rope_angles(self.config, positions)
        x = self.model.embed_tokens(ids)
        if x.dtype == torch.float64:
            angles = (angles[0].double(), angles[1].double())
        after: list[Tensor | None] = []
        for i, layer in enumerate(self.model.layers):
            x, state = layer(x, angles, stretch, resets, chunk, states[i] if states else None, keep)
            after.append(state)
        return self.model.norm(x), after

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., H] -> [..., vocab]."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def save(self, path: Path) -> None:
        """Writes the weights in bf16."""
        tensors = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in self.state_dict().items()}
        save_file(tensors, path, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "PowerCoder":
        """Reads config.json and model.safetensors; the weights become float32."""
        model = cls(Config.load(folder))
        model.load_state_dict({name: p.float() for name, p in load_file(folder / "model.safetensors").items()})
        return model
