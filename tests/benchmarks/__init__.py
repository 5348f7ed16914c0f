"""The benchmarks' own code: that they measure what they say."""
