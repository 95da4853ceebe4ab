"""The pictures of each job: one module a job, each with `figures(job_directory, project)`."""
