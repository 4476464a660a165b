"""How fast, beside others and beside what the processor could do: ``python -m benchmarks`` prints and saves tables.

`limit` finds how many binary multiply-accumulates this processor can do at all. `convolutions`, `training` and
`networks` time ours and the peers'. `deployed` weighs packed files. `threads`, on request, tells what a second core
brings. The peers (PyTorch, OpenVINO) run in processes of their own (`peers`); a note says which are not installed.

Everything is timed in rounds, each contender once per round (`clock`): if a machine changes its speed, it does so for
all. Figures are medians, and ratios are ratios of medians of one run.
"""
