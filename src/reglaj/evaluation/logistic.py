"""Multinomial logistic regression with an L2 penalty, fast on many sparse features, for baselines.

It minimises what scikit-learn's `LogisticRegression(C=strength)` minimises,
    1/2 ||W||² + strength · Σ_i cross-entropy(softmax(x_i W + b), y_i),
with the intercept b free, and reaches the same optimum. It is faster on text because

1. W = Xᵀ A for some A (N, C) (representer theorem; Schölkopf, Herbrich and Smola 2001), so that the vectors
   which L-BFGS keeps are N by C instead of F by C, and F, the number of n-grams, is the larger one by far;
2. logits move linearly along a search direction, so a line search needs no product with X at all: one
   product with X Xᵀ an iteration, however often the step is halved;
3. strengths are solved from the weakest up, each from the solution before it.

N rows, F features, C classes. Everything is float32; L-BFGS inner products are those of the space of W.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reglaj.evaluation.types import FloatArray, IntArray

_MEMORY = 10
_TOLERANCE = 0.05
"""Norm of the gradient, relative to that of W, at which a strength counts as solved: the optimum is where W equals
minus `strength` times the gradient of the loss, so this is the relative error of that equation."""


@dataclass(frozen=True)
class LogisticModel:
    """Weights (F, C) and intercepts (C,) of one strength."""

    strength: float
    weights: FloatArray
    intercepts: FloatArray
    iterations: int

    def predict(self, features: Any) -> FloatArray:
        """Probabilities (N, C), rows summing to one, of dense or sparse features (N, F)."""
        return softmax(np.asarray(features @ self.weights, dtype=np.float64) + self.intercepts)


def logistic_path(
    features: Any, targets: IntArray, num_classes: int, strengths: Sequence[float], *, max_iterations: int = 300
) -> Iterator[LogisticModel]:
    """One model per strength, in ascending order, each computed when it is asked for.

    features: (N, F) dense or `scipy.sparse` matrix. targets: (N,) in [0, num_classes); a class without a row
    is allowed and ends with a small probability.
    """
    problem = _Problem(features, targets, num_classes)
    point = problem.start()
    for strength in sorted(strengths):
        point, iterations = _minimise(problem, point, float(strength), max_iterations)
        weights = np.asarray(problem.transposed @ point.a, dtype=np.float32)
        yield LogisticModel(float(strength), weights, point.b.copy(), iterations)


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, without overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@dataclass
class _Vector:
    """An element (W, b): W = Xᵀ a with a (N, C), its image z = X W (N, C), and b (C,)."""

    a: FloatArray
    z: FloatArray
    b: FloatArray

    def dot(self, other: _Vector) -> float:
        """<W, W'> + <b, b'>; <Xᵀa, W'> = <a, XW'>."""
        return float(np.vdot(self.a, other.z)) + float(np.vdot(self.b, other.b))

    def plus(self, factor: float, other: _Vector) -> _Vector:
        scale = np.float32(factor)
        return _Vector(self.a + scale * other.a, self.z + scale * other.z, self.b + scale * other.b)

    def add(self, factor: float, other: _Vector) -> None:
        scale = np.float32(factor)
        self.a += scale * other.a
        self.z += scale * other.z
        self.b += scale * other.b


class _Problem:
    """The rows, and loss and gradient at a point."""

    def __init__(self, features: Any, targets: IntArray, num_classes: int) -> None:
        from scipy import sparse

        is_sparse = sparse.issparse(features)
        self.features: Any = sparse.csr_matrix(features, dtype=np.float32) if is_sparse else features.astype(np.float32)
        self.transposed: Any = self.features.T.tocsr() if is_sparse else self.features.T
        self.rows = np.arange(len(targets))
        self.targets = np.asarray(targets)
        self.num_classes = num_classes

    def start(self) -> _Vector:
        shape = (len(self.targets), self.num_classes)
        return _Vector(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(self.num_classes, np.float32))

    def loss(self, z: FloatArray, b: FloatArray) -> tuple[float, FloatArray]:
        """Summed cross-entropy, and its derivative by the logits (N, C)."""
        logits = z + b
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[self.rows, self.targets].astype(np.float64)
        np.exp(logits, out=logits)
        totals = logits.sum(axis=1, keepdims=True)
        loss = float(np.log(totals[:, 0].astype(np.float64)).sum() - chosen.sum())
        logits /= totals
        logits[self.rows, self.targets] -= 1
        return loss, logits

    def gradient(self, point: _Vector, residual: FloatArray, strength: float) -> _Vector:
        """The gradient in (W, b); the one place that multiplies with X Xᵀ."""
        a = point.a + np.float32(strength) * residual
        z = np.asarray(self.features @ (self.transposed @ a), dtype=np.float32)
        return _Vector(a, z, np.float32(strength) * residual.sum(axis=0))


def _minimise(problem: _Problem, point: _Vector, strength: float, max_iterations: int) -> tuple[_Vector, int]:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.4) from `point` to the optimum of one strength."""

    def value_at(candidate: _Vector) -> tuple[float, FloatArray]:
        loss, residual = problem.loss(candidate.z, candidate.b)
        return 0.5 * float(np.vdot(candidate.a, candidate.z)) + strength * loss, residual

    value, residual = value_at(point)
    gradient = problem.gradient(point, residual, strength)
    memory: deque[tuple[_Vector, _Vector, float]] = deque(maxlen=_MEMORY)
    for iteration in range(max_iterations):
        if gradient.dot(gradient) <= _TOLERANCE**2 * point.dot(point):
            return point, iteration
        direction = _direction(gradient, memory)
        found = _line_search(point, value, gradient.dot(direction), direction, value_at)
        if found is None:  # float32 has no smaller step that still descends
            return point, iteration
        new_point, value, residual, step = found
        new_gradient = problem.gradient(new_point, residual, strength)
        change = new_gradient.plus(-1, gradient)
        moved = _Vector(direction.a * step, direction.z * step, direction.b * step)
        curvature = moved.dot(change)
        if curvature > 0:
            memory.append((moved, change, 1 / curvature))
        point, gradient = new_point, new_gradient
    return point, max_iterations


def _direction(gradient: _Vector, memory: deque[tuple[_Vector, _Vector, float]]) -> _Vector:
    """The two-loop recursion; without memory, a step of unit length downhill."""
    if not memory:
        scale = np.float32(-1 / max(gradient.dot(gradient) ** 0.5, 1e-12))
        return _Vector(gradient.a * scale, gradient.z * scale, gradient.b * scale)
    direction = _Vector(-gradient.a, -gradient.z, -gradient.b)
    alphas = []
    for moved, change, rho in reversed(memory):
        alpha = rho * moved.dot(direction)
        direction.add(-alpha, change)
        alphas.append(alpha)
    _, change, rho = memory[-1]
    scale = np.float32(1 / (rho * change.dot(change)))
    direction = _Vector(direction.a * scale, direction.z * scale, direction.b * scale)
    for (moved, change, rho), alpha in zip(memory, reversed(alphas), strict=True):
        direction.add(alpha - rho * change.dot(direction), moved)
    return direction


def _line_search(
    point: _Vector,
    value: float,
    slope: float,
    direction: _Vector,
    value_at: Callable[[_Vector], tuple[float, FloatArray]],
) -> tuple[_Vector, float, FloatArray, np.float32] | None:
    """The longest of 1, 1/2, 1/4, ... that descends enough (Armijo), or None. Costs no product with X."""
    step = 1.0
    for _ in range(30):
        candidate = point.plus(step, direction)
        new_value, residual = value_at(candidate)
        if new_value <= value + 1e-4 * step * slope:
            return candidate, new_value, residual, np.float32(step)
        step /= 2
    return None
