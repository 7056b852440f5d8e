"""Many jobs over many devices. Nothing here but `worker` and `hosts` imports TensorFlow.

What the words mean, here, in the logs and in the README:

- job: one training that a configuration asks for: its settings, and the name of its folder (`Job`).
  A sweep is all jobs of a configuration.
- run: what has become of a job: all that was trained of it so far, and the files in its folder
  (`RunFolder`). The configuration key `run`, the original's, numbers jobs that are otherwise equal:
  each is a job, and has a run, of its own.
- task: what a scheduler hands out: a job, the folder of its run, and what its process is told
  (`Task`). The lines of `scheduler.log` speak of tasks, each by its job's name.
- slot: an entry of `gpu`: the devices that one task has to itself until it ends (`Slot`).
- attempt: one process at work on a task. It may end early; the next attempt goes on from the run's
  last checkpoint (`Attempt`).
- sweeper: one start of `main.py`. It makes attempts, and others may at the same time (`Sweeper`).

What Ray, Slurm and `TF_CONFIG` call a task or a job is always called theirs.
"""
