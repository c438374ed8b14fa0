# What a newcomer types. Each target installs what it misses, asks nothing, and leaves nothing running.

.PHONY: help demo test lint bench soak fuzz

help:
	@echo 'make demo    move a running VM between two libvirt hosts, and watch it boot on the second'
	@echo 'make test    all tests, those on real libvirt hosts with real guests included'
	@echo 'make lint    formatting, clippy, licences and advisories of dependencies, shell scripts'
	@echo 'make bench   speed and memory, beside what people script, on the same disk and server'
	@echo 'make soak    4 GiB over each kind of storage, with thirty cut connections each'
	@echo 'make fuzz    every parser for five minutes'

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh

lint:
	@scripts/lint.sh

bench:
	@scripts/bench.sh

soak:
	@scripts/soak.sh

fuzz:
	@scripts/fuzz.sh
