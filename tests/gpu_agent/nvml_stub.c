/* A stand-in for libnvidia-ml.so.1: what it answers stands in the text file that NVML_STUB names, read again at each call.

   A line is "key value"; a value "!15" is the error 15. A GPU's value that is not there is NOT_SUPPORTED, as a real driver
   answers. OLD_DRIVER leaves out the functions that came late. The declarations are ours, so the test compares their layout
   with the one that nvidia-ml-py uses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_SUPPORTED 3
#define INVALID_ARGUMENT 2
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define UNINITIALIZED 1

typedef struct { unsigned index; } *Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned version, sensor; int celsius; } Temperature;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;

static struct { unsigned index; } devices[16] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}};
static int opened = 0;

unsigned stub_sizeof_memory(void) { return sizeof(Memory); }
unsigned stub_sizeof_utilization(void) { return sizeof(Utilization); }
unsigned stub_sizeof_temperature(void) { return sizeof(Temperature); }
unsigned stub_sizeof_process(void) { return sizeof(Process); }

/* 0 and the text, or an error. */
static int look(const char *key, char *text, size_t size) {
  const char *path = getenv("NVML_STUB");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return DRIVER_NOT_LOADED;
  char line[512];
  int result = NOT_SUPPORTED;
  size_t length = strlen(key);
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, key, length) == 0 && line[length] == ' ') {
      const char *value = line + length + 1;
      result = value[0] == '!' ? atoi(value + 1) : 0;
      snprintf(text, size, "%s", value);
    }
  }
  fclose(file);
  return result;
}

static int look_number(const char *key, unsigned long long *number) {
  char text[128];
  int result = look(key, text, sizeof text);
  if (result == 0) *number = strtoull(text, NULL, 10);
  return result;
}

static int ask(Device device, const char *what, char *text, size_t size) {
  char key[64];
  if (!opened) return UNINITIALIZED;
  snprintf(key, sizeof key, "gpu%u.%s", device->index, what);
  return look(key, text, size);
}

static int ask_number(Device device, const char *what, unsigned long long *number) {
  char text[128];
  int result = ask(device, what, text, sizeof text);
  if (result == 0) *number = strtoull(text, NULL, 10);
  return result;
}

static int ask_unsigned(Device device, const char *what, unsigned *number) {
  unsigned long long wide = 0;
  int result = ask_number(device, what, &wide);
  if (result == 0) *number = (unsigned)wide;
  return result;
}

int nvmlInitWithFlags(unsigned flags) {
  unsigned long long ignored;
  int result = look_number("init", &ignored);
  (void)flags;
  if (result == NOT_SUPPORTED) result = 0;
  if (result == 0) opened = 1;
  return result;
}

int nvmlShutdown(void) {
  int result = opened ? 0 : UNINITIALIZED;
  opened = 0;
  return result;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) { return look("driver", version, length); }

int nvmlDeviceGetCount_v2(unsigned *count) {
  unsigned long long number = 0;
  int result = opened ? look_number("count", &number) : UNINITIALIZED;
  *count = (unsigned)number;
  return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
  char key[64], text[64];
  if (index >= 10) return INVALID_ARGUMENT;
  snprintf(key, sizeof key, "gpu%u.handle", index);
  int result = look(key, text, sizeof text);
  *device = (Device)&devices[index];
  return result == NOT_SUPPORTED ? 0 : result;
}

int nvmlDeviceGetName(Device device, char *name, unsigned length) { return ask(device, "name", name, length); }
int nvmlDeviceGetUUID(Device device, char *uuid, unsigned length) { return ask(device, "uuid", uuid, length); }

int nvmlDeviceGetUtilizationRates(Device device, Utilization *utilization) {
  int result = ask_unsigned(device, "utilization", &utilization->gpu);
  return result ? result : ask_unsigned(device, "memory_utilization", &utilization->memory);
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
  int result = ask_number(device, "memory_total", &memory->total);
  if (!result) result = ask_number(device, "memory_used", &memory->used);
  memory->free = memory->total - memory->used;
  return result;
}

int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *celsius) {
  (void)sensor;
  return ask_unsigned(device, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *mw) { return ask_unsigned(device, "power", mw); }
int nvmlDeviceGetFanSpeed(Device device, unsigned *percent) { return ask_unsigned(device, "fan", percent); }

int nvmlDeviceGetClockInfo(Device device, unsigned clock, unsigned *mhz) {
  return ask_unsigned(device, clock == 1 ? "sm_clock" : clock == 2 ? "memory_clock" : "other_clock", mhz);
}

#ifndef OLD_DRIVER
int nvmlDeviceGetTemperatureV(Device device, Temperature *temperature) {
  unsigned celsius = 0;
  int result = ask_unsigned(device, "temperature", &celsius);
  temperature->celsius = (int)celsius;
  return result;
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *mw) { return ask_unsigned(device, "power_limit", mw); }

/* "compute 41:1000,42:-": pid and bytes, - for a process whose memory the driver does not know. */
static int processes(Device device, const char *what, unsigned *count, Process *list) {
  char text[256];
  int result = ask(device, what, text, sizeof text);
  if (result) return result;
  unsigned room = *count;
  *count = 0;
  for (char *rest = text, *one; (one = strsep(&rest, ","));) {
    char *memory = strchr(one, ':');
    if (list && *count < room) {
      memset(&list[*count], 0, sizeof *list);
      list[*count].pid = (unsigned)strtoul(one, NULL, 10);
      list[*count].memory = memory[1] == '-' ? ~0ULL : strtoull(memory + 1, NULL, 10);
    }
    ++*count;
  }
  return *count > room ? INSUFFICIENT_SIZE : 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, Process *list) {
  return processes(device, "compute", count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *count, Process *list) {
  return processes(device, "graphics", count, list);
}
#endif
