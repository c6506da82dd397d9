// The look-up on a CPU: a C interface, called with data pointers.
extern "C" int memoryformer_version() { return 1; }
