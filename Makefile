# `make gpu-report DATA=DIR` measures everything on this computer's GPU; DIR has CIFAR-10's files.
.PHONY: gpu-report gpu-cubins
gpu-report:
	python benchmarks/gpu_report.py $(if $(DATA),--data $(DATA)) $(if $(CUBINS),--cubins $(CUBINS))

# `make gpu-cubins CUBINS=DIR` compiles the kernels for it on a computer without one.
gpu-cubins:
	python benchmarks/cubins.py --out $(or $(CUBINS),cubins)

# `make mutations` plants faults in a copy of the source and sees whether the tests find them.
.PHONY: mutations
mutations:
	cd tests && python -m mutations $(if $(ONLY),--only "$(ONLY)")
