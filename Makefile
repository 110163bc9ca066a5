# `make gpu-report DATA=DIR` measures everything on this computer's GPU; DIR has CIFAR-10's files.
.PHONY: gpu-report
gpu-report:
	python -m pip install --quiet -e ".[cuda12,test,bench]"
	python benchmarks/gpu_report.py $(if $(DATA),--data $(DATA))
