#include "faults.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

namespace softgpu {

int setting(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::stringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) {
        parts.push_back(part);
    }
    return parts;
}

bool fault_is_due(const std::string& kind, const std::string& what) {
    static std::mutex mutex;
    static auto& calls = *new std::map<std::string, int>;  // never destroyed, as in handles.h
    const char* text = getenv("SOFTGPU_FAULT");
    if (!text) {
        return false;
    }
    std::lock_guard lock(mutex);
    const std::string key = what.empty() ? kind : kind + ":" + what;
    const int call = ++calls[key];
    for (const std::string& fault : split(text, ',')) {
        if (fault == key || fault == key + ":" + std::to_string(call)) {
            return true;
        }
        // What hangs goes on hanging.
        const bool stays = kind == "nccl-hang" && fault.compare(0, key.size() + 1, key + ":") == 0;
        if (stays && call > atoi(fault.c_str() + key.size() + 1)) {
            return true;
        }
    }
    return false;
}

void report(const char* format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "softgpu: %s\n", text);
}

unsigned random_below(unsigned bound) {
    static std::mutex mutex;
    static uint64_t state = 0x9e3779b97f4a7c15u * static_cast<uint64_t>(setting("SOFTGPU_SEED", 1) + 1);
    std::lock_guard lock(mutex);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<unsigned>((state >> 32) * bound >> 32);
}

}  // namespace softgpu
