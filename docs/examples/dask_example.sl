#!/bin/bash
#SBATCH --time=00:05:00
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=512M

# your modules belong here: on the cluster of the tests, Python and its MPI are on PATH already;
# Slurm brings the ranks together as MPICH 5 wants it, over TCP (by libfabric's ofi_rxm, for its own way over TCP hangs
# now and then when two ranks connect to each other at once)
export SLURM_MPI_TYPE=pmi2 MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER="tcp;ofi_rxm"

srun python dask_example.py
