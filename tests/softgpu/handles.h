// Handles that the program holds: a pointer that is not, or no longer, one of them is an error, never a crash.
#pragma once

#include <map>
#include <memory>
#include <mutex>

namespace softgpu {

template <class T>
class Handles {
  public:
    // Keeps an object; its address is the handle.
    T* add(std::shared_ptr<T> object) {
        std::lock_guard lock(mutex);
        T* handle = object.get();
        objects[handle] = std::move(object);
        return handle;
    }

    // The object, or null.
    std::shared_ptr<T> find(const void* handle) {
        std::lock_guard lock(mutex);
        auto found = objects.find(handle);
        return found == objects.end() ? nullptr : found->second;
    }

    // Whether there was such an object; whoever still works with it keeps it.
    bool remove(const void* handle) {
        std::lock_guard lock(mutex);
        return objects.erase(handle) > 0;
    }

  private:
    // Never destroyed: threads of the program may still call when the process ends.
    std::mutex& mutex = *new std::mutex;
    std::map<const void*, std::shared_ptr<T>>& objects = *new std::map<const void*, std::shared_ptr<T>>;
};

}  // namespace softgpu
