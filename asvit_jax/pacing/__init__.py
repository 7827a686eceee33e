"""How much to prune for a speed on this device.

`table` measures what the parts of a network take by the number of tokens, `cache` keeps that,
`prediction` adds parts up to a network, `solving` looks for the pruning that is predicted to be as
fast as asked and changes the predictions least, and `reaching` times it and corrects the aim.
"""
