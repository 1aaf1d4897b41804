"""Mutants that no test notices, and why that is right."""

_MOMENTUM = "the momentum of running statistics, of which this call updates none"

EXPLAINED = {
    "fastnas/ops/reference.py: return F.batch_norm(x, next(self._running), next(self._running), gamma, beta, False, "
    "0.0, norm.eps)  →  return F.batch_norm(x, next(self._running), next(self._running), gamma, beta, False, 1.0, "
    "norm.eps)": _MOMENTUM,
    "fastnas/ops/reference.py: return F.batch_norm(x, None, None, gamma, beta, True, 0.0, norm.eps)  →  "
    "return F.batch_norm(x, None, None, gamma, beta, True, 1.0, norm.eps)": _MOMENTUM,
    "fastnas/nn/dense_atrous.py: u = F.conv2d(F.relu(x), weight, padding=RATE * (weight.shape[-1] // 2), "
    "dilation=RATE)  →  u = F.conv2d(F.relu(x), weight, padding=RATE * (weight.shape[-2] // 2), dilation=RATE)": (
        "kernels are square"
    ),
}
