"""The neighbour search on a GPU, with nothing but NumPy and PyTorch: how fast, against what the hardware could do at best.

    python benchmarks/gpu_search.py [--rows 1000000] [--vectors FILE.npy --labels FILE.npz] [--device cuda]

For every ordered pair of five languages, the k best rows of the target for each row of the source, by matrix products in half
precision and top-k, block by block; exact. Vectors come from made_vectors.py, or are drawn at random (speed does not depend on
what they are). The floor: 2 n² d (1 - 1/L) operations at the speed that one large matrix product reaches on this device. Where
FAISS is installed and sees a GPU, `ultralink_nb.neighbours`, which searches exactly there, runs on the same vectors too.
Self-check without a GPU: --rows 20000 --device cpu.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

LANGUAGES = 5


def best_of(queries: torch.Tensor, vectors: torch.Tensor, k: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products and row numbers (m, k) of the best k of `vectors` (n, d) for each of `queries` (m, d)."""
    found, rows = [], []
    for part in queries.split(block):
        best = torch.full((len(part), k), -2.0, dtype=part.dtype, device=part.device)
        at = torch.full((len(part), k), -1, dtype=torch.int64, device=part.device)
        for number, others in enumerate(vectors.split(8 * block)):
            top, where = (part @ others.T).topk(min(k, len(others)), dim=1)
            both, which = torch.cat([best, top], 1).topk(k, dim=1)
            best, at = both, torch.cat([at, where + number * 8 * block], 1).gather(1, which)
        found.append(best)
        rows.append(at)
    return torch.cat(found), torch.cat(rows)


def wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def best_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large matrix product, the median of five."""
    size = 8192 if device.type == "cuda" else 1024
    one, seconds = torch.randn(size, size, device=device, dtype=dtype), []
    for _ in range(6):
        start = wait(device)
        one @ one
        seconds.append(wait(device) - start)
    return 2 * size**3 / float(np.median(seconds[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--vectors", type=Path, help="vectors of made_vectors.py, .npy")
    parser.add_argument("--labels", type=Path, help="their languages, .npz")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--block", type=int, default=4096)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    if arguments.vectors:
        held, codes = np.load(arguments.vectors), np.load(arguments.labels)["codes"]
    else:
        generator = np.random.default_rng(0)
        held = np.concatenate([generator.standard_normal((len(part), arguments.dimension), np.float32).astype(np.float16)
                               for part in np.array_split(np.arange(arguments.rows), 64)])
        codes = np.arange(len(held)) % LANGUAGES
    parts = []
    for code in np.unique(codes):
        part = torch.from_numpy(np.ascontiguousarray(held[codes == code])).to(device).float()
        part -= part.mean(dim=0)
        parts.append(torch.nn.functional.normalize(part).to(dtype))
    n, d = held.shape
    start = wait(device)
    found = {(a, b): best_of(parts[a], parts[b], arguments.k, arguments.block)
             for b in range(len(parts)) for a in range(len(parts)) if a != b}
    seconds = wait(device) - start
    operations = 2 * d * sum(len(parts[a]) * len(parts[b]) for a, b in found)
    speed = best_speed(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}: {n:,} rows x {d}, {len(found)} ordered pairs, k = {arguments.k}: {seconds:.2f} s, "
          f"{operations / seconds / 1e12:.2f} T operations/s; floor {operations / speed:.2f} s at {speed / 1e12:.2f}")
    chosen = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(0))[:1000].to(device)
    exact = (parts[0][chosen].double() @ parts[1].double().T).max(dim=1).values
    agree = (found[0, 1][0][chosen, 0].double() >= exact - 2e-3).double().mean().item()
    print(f"best neighbour found for {agree:.1%} of a sample")
    try:
        import faiss

        from ultralink_nb.neighbours import search_between
        from ultralink_nb.vectors import centre
    except ImportError:
        return print("FAISS or the kit is not installed: PyTorch only")
    if faiss.get_num_gpus():
        centred = centre(held, [f"l{code}" for code in codes])
        start = time.perf_counter()
        search_between(centred, arguments.k)
        print(f"FAISS on {faiss.get_num_gpus()} GPUs: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
