"""How fast, beside whom, and beside what the processor could do. ``python -m benchmarks`` prints and saves tables.

`limit` finds how many binary multiply-accumulates this processor can do at all; `convolutions`, `training` and
`networks` time ours and the peers'; `deployed` weighs packed files; `threads`, on request, tells what a second core
brings. Peers (PyTorch, OpenVINO) run in processes of their
own (`peers`) and are left out with a note where they are not installed. Everything is timed in rounds, each contender
once a round (`clock`), so that a machine that changes its speed changes it for all; figures are medians, and ratios are
of medians of one run.
"""
