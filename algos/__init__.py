"""What is learnt from token episodes: tokens, packing, networks, sampler, one file an algorithm.

Knows torch, transformers and `envs`; never Ray, DeepSpeed or MLflow, so it runs on any machine with torch.
"""
