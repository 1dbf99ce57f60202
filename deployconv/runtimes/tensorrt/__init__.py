"""TensorRT and TensorRT-RTX: one adapter over both, loaded in a worker process only.

| module | runs in | what it does |
| --- | --- | --- |
| `compile` | deployconv | a model and a target in, the stages and their evidence out |
| `session` | deployconv | the backends `tensorrt` and `tensorrt-rtx` |
| `process` | deployconv | starts the worker, holds it to its limits, says how it died |
| `protocol` | both | the JSON lines between the two |
| `worker` | worker | takes requests and answers them |
| `binding` | worker | the adapter: parse, build, deserialize |
| `execution`, `device` | worker | runs an engine; device memory, streams, events |
| `buildlog` | worker | memory figures and kernels from the build log |

A parser or compiler that crashes, hangs or eats all memory ends the worker, not deployconv.
"""
