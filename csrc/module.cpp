// The words by which torch_bgdebias/ops/extension.py knows a library that it may load: the number counts the schema's
// changes. Kernels register themselves in their own files; Python owns the schema and nothing here uses Python's API.

extern "C" __attribute__((visibility("default"), used)) const char torch_bgdebias_marker[] =
    "torch_bgdebias kernels for schema 1";
