"""Weights rounded to few bits so that errors of a row make up for those of the rows before.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (2022), algorithm 1, rows in the order of how much their inputs are (`desc_act` of
AutoGPTQ) over grids that are fixed before (`static_groups`), so that no row needs an index.
onnxruntime's `gptq_quantize` runs the network once for each weight, and rounds what it has rounded
to grids anew; NNCF's takes OpenVINO's models alone.
"""

from dataclasses import dataclass

import numpy as np

_AT_ONCE = 128  # rows whose errors are put into all later rows together
_SHRINKS = np.linspace(1.0, 0.6, 17)  # of a block's range: what is clipped may cost less than steps


@dataclass(frozen=True)
class BlockGrid:
    """`(code - zero) · scale` for codes of so many bits: a scale and a zero for each block.

    A block is `block` rows of one column; scales float32 and zeros uint8 are [rows / block, n].
    """

    bits: int
    block: int
    scales: np.ndarray
    zeros: np.ndarray

    def codes(self, rows: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Codes uint8 of values [m, n] that lie in these blocks [m]."""
        steps = np.rint(rows / self.scales[blocks]) + self.zeros[blocks]
        return np.clip(steps, 0, 2**self.bits - 1).astype(np.uint8)

    def values(self, codes: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """What codes [m, n] of these blocks [m] stand for, float32."""
        return (codes.astype(np.float32) - self.zeros[blocks]) * self.scales[blocks]


@dataclass(frozen=True)
class Rounded:
    """A weight as codes uint8 [rows, n] on a grid."""

    grid: BlockGrid
    codes: np.ndarray

    def values(self) -> np.ndarray:
        """The weight that a network computes with, float32 [rows, n]."""
        return self.grid.values(self.codes, _blocks(len(self.codes), self.grid.block))


def grid_of(weight: np.ndarray, importance: np.ndarray, bits: int, block: int) -> BlockGrid:
    """The grid of a weight [rows, n] that has the least squared error, by importance [rows].

    Of ranges from that of the values (zero included) down to six tenths of it; rows are a multiple
    of `block`.
    """
    parts = weight.reshape(-1, block, weight.shape[1])
    share = importance.reshape(-1, block, 1)
    low = np.minimum(parts.min(axis=1), 0)
    high = np.maximum(parts.max(axis=1), 0)
    most = 2**bits - 1
    best = np.full(low.shape, np.inf)
    scales, zeros = np.ones(low.shape, np.float32), np.zeros(low.shape, np.uint8)
    for shrink in _SHRINKS:
        scale = ((high - low) * shrink / most).astype(np.float32)
        scale[scale == 0] = 1.0
        zero = np.clip(np.rint(-low * shrink / scale), 0, most)
        codes = np.clip(np.rint(parts / scale[:, None]) + zero[:, None], 0, most)
        error = (share * ((codes - zero[:, None]) * scale[:, None] - parts) ** 2).sum(axis=1)
        better = error < best
        best[better], scales[better], zeros[better] = error[better], scale[better], zero[better]
    return BlockGrid(bits, block, scales, zeros)


def nearest(weight: np.ndarray, grid: BlockGrid) -> Rounded:
    """Each value on its own rounded to the grid."""
    return Rounded(grid, grid.codes(weight, _blocks(len(weight), grid.block)))


def compensated(
    weight: np.ndarray, hessian: np.ndarray, grid: BlockGrid, damping: float
) -> Rounded:
    """A weight [rows, n] for inputs with the second moments `hessian` [rows, rows].

    Each row's error is put into the rows that are not rounded yet, as much as their inputs go along
    with its own. `damping` times the mean of the diagonal is added to it.
    """
    moments = hessian.astype(np.float64)
    unused = np.diag(moments) <= 0
    moments[unused, unused] = 1.0
    moments[np.diag_indices_from(moments)] += damping * float(np.mean(np.diag(moments)))
    order = np.argsort(-np.diag(moments), kind="stable")
    moments = moments[np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T.astype(np.float32)
    left = weight.astype(np.float32)[order]
    blocks = _blocks(len(weight), grid.block)[order]
    codes = np.empty(weight.shape, np.uint8)
    for start in range(0, len(left), _AT_ONCE):
        end = min(start + _AT_ONCE, len(left))
        errors = np.empty((end - start, left.shape[1]), np.float32)
        for row in range(start, end):
            at = blocks[row : row + 1]
            code = grid.codes(left[row : row + 1], at)
            codes[order[row]] = code[0]
            missed = (left[row] - grid.values(code, at)[0]) / factor[row, row]
            left[row + 1 : end] -= np.outer(factor[row, row + 1 : end], missed)
            errors[row - start] = missed
        left[end:] -= factor[start:end, end:].T @ errors
    return Rounded(grid, codes)


def relative_error(weight: np.ndarray, rounded: Rounded, hessian: np.ndarray) -> float:
    """Mean squared error of the product with those inputs, by the mean square of the product."""
    missed = rounded.values() - weight
    return float(_energy(missed, hessian) / max(_energy(weight, hessian), 1e-30))


def _energy(weight: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.einsum("kn,kn->", weight, hessian @ weight, dtype=np.float64))


def _blocks(rows: int, block: int) -> np.ndarray:
    return np.arange(rows) // block
