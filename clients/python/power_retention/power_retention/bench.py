"""Times power_retention on this machine's GPU beside scaled_dot_product_attention: `python -m power_retention.bench`.

One table, and with --json FILE the same as JSON. Causal attention is another function of the same tensors: what is compared is
what a layer costs. Times are medians, by events, after a warm-up.
"""
import argparse
import json
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import power_retention

SHAPES = ((65536, 8, 8, 64), (16384, 24, 2, 128), (4096, 8, 8, 64))  # t, query heads, key/value heads, head size
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}


def median_ms(run, runs):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def tensors(t, heads_q, heads_kv, d):
    def normal(heads):
        return torch.randn(1, t, heads, d, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    Q, K, V = normal(heads_q), normal(heads_kv), normal(heads_kv)
    log_G = (torch.rand(1, t, heads_kv, device="cuda") * -0.001).requires_grad_()
    return Q, K, V, log_G, torch.randn_like(Q)


def measure(call, dY, inputs, runs):
    """Milliseconds of a forward pass, and of one with its backward pass; or why there are none."""
    def both():
        torch.autograd.grad(call(), inputs, dY)

    try:
        with torch.no_grad():
            forward = median_ms(call, runs)
        return {"forward_ms": forward, "forward_backward_ms": median_ms(both, runs)}
    except (NotImplementedError, RuntimeError) as error:
        return {"missing": str(error).splitlines()[0]}


def attention(backend, Q, K, V):
    q, k, v = (x.transpose(1, 2) for x in (Q, K, V))
    with sdpa_kernel(backend):
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=Q.shape[2] != K.shape[2])
    return y.transpose(1, 2)


def rows(runs):
    for shape in SHAPES:
        Q, K, V, log_G, dY = tensors(*shape)
        name = "t {} heads {}/{} d {}".format(*shape)
        for keeps in (False, True):
            result = measure(lambda: power_retention(Q, K, V, log_G, keep_states=keeps), dY, (Q, K, V, log_G), runs)
            yield {"shape": name, "what": "power_retention" + (", keep_states" if keeps else ""), **result}
        for label, backend in BACKENDS.items():
            result = measure(lambda: attention(backend, Q, K, V), dY, (Q, K, V), runs)
            yield {"shape": name, "what": f"attention, {label}", **result}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the results to this file too")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "no GPU, nothing was measured\n")
    device = torch.cuda.get_device_name()
    print(f"{device}, PyTorch {torch.__version__}, bfloat16, causal, gated where it is retention; median of {options.runs}")
    print(f"{'shape':26} {'what':30} {'forward ms':>11} {'and backward':>13}")
    results = []
    for row in rows(options.runs):
        results.append(row)
        if "missing" in row:
            print(f"{row['shape']:26} {row['what']:30} {row['missing']}")
        else:
            print(f"{row['shape']:26} {row['what']:30} {row['forward_ms']:11.3f} {row['forward_backward_ms']:13.3f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": device, "torch": torch.__version__, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
