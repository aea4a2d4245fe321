"""The benchmark: esource beside its peers and the raw drivers, interleaved in one run."""
