"""Calibrates a network for a speed-up on a device.

`table` measures the time of each part of a network as a function of the number of tokens, and
`cache` stores these times. `prediction` adds them up to the time of a pruned network. `solving`
searches the pruning that is predicted to reach the speed-up and changes the network's predictions
least. `reaching` times the result and corrects the target.
"""
