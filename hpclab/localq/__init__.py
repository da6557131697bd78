"""A batch system for one machine, without a daemon: `python -m hpclab.localq submit|status|cancel`.

Whoever touches the queue moves it on: every command, and every job that ends, runs `dispatch` under one lock.
Each running job has one shepherd (users read "its supervisor"). It holds a lock on a file in the job's folder
as long as it lives: this, and never a pid, says whether it is alive. Pending jobs have no process at all.
A process belongs to the job whose cookie it has in its environment, or else to the one it descends from.
"""
