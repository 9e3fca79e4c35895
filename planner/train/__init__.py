"""The reference trainer: a plan's parametrization, in plain PyTorch, exactly as its table says.

Needs the extra ``train``. Importing this package does not import PyTorch: `config`, `data`,
`corpus` and `log` never do; `loop`, `model`, `optimizer`, `checkpoint`, `parallel`, `coordinates`
and `transfer` do, and are imported only once `planner.train.extra.require_torch` has found it.
"""
