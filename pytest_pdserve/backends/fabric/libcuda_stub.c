/* Stands in for NVIDIA's driver on machines without one: every call answers "no device".

   NIXL's LIBFABRIC plugin is linked against libcuda.so.1 and does not load without it. On the CPU
   it calls none of these functions but to see that there is no GPU. */

enum { CUDA_ERROR_NO_DEVICE = 100 };

int cuInit(unsigned int flags)
{
    (void)flags;
    return CUDA_ERROR_NO_DEVICE;
}

int cuCtxSetCurrent(void *context)
{
    (void)context;
    return CUDA_ERROR_NO_DEVICE;
}

int cuDeviceGetPCIBusId(char *bus_id, int length, int device)
{
    (void)device;
    if (length > 0)
        bus_id[0] = '\0';
    return CUDA_ERROR_NO_DEVICE;
}

int cuPointerGetAttributes(unsigned int count, int *attributes, void **values,
                           unsigned long long pointer)
{
    (void)count;
    (void)attributes;
    (void)values;
    (void)pointer;
    return CUDA_ERROR_NO_DEVICE;
}
