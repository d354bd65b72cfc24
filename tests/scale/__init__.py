"""Archives and servers on engines that exist: Ray and Triton, each in an environment of its own.

`make scale` makes both (`environment.sh`) and runs the tests; elsewhere they are skipped with the reason.
"""
