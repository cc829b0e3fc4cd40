"""`python -m lmrl_ray`: the `lmrl` command of the folder it is called in, as a cluster's jobs run it."""

from lmrl_ray.cli import main

main()
