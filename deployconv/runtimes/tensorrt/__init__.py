"""TensorRT and TensorRT-RTX: one adapter over both, loaded in a worker process only.

| module | runs in | what it does |
| --- | --- | --- |
| `installation` | deployconv | which library is installed, and what it can do on this machine |
| `compile` | deployconv | compiles a model for targets and reports every stage |
| `session` | deployconv | the backends `tensorrt` and `tensorrt-rtx` |
| `process` | deployconv | the worker, a `worker_process.RestartingWorker`; the stages |
| `worker` | worker | takes requests and answers them |
| `binding` | worker | the adapter: parse, build, deserialize, the build log, the caches |
| `execution` | worker | runs, times and profiles an engine |
| `device` | worker | describes the GPU; manages its memory, stream and events |

A parser or compiler that crashes, hangs or uses up all memory ends the worker, not deployconv.
"""
