"""The proof: may this specialist be trusted with this task, how far, and how sure are we?

`bounds` turns losses into p-values, `certify` walks the thresholds on calibration, `judge` looks once at test. Pure
functions of arrays: nothing here reads a clock, tosses a coin or knows what a request or an answer looks like.
"""
