// Walks the monomials i <= j (<= k <= l) of d variables in lexicographic order: the rows of the state.
// Private to kernels/power_retention.
#pragma once

#include <cstdint>

#include "kernels/power_retention/layout.h"

namespace statehouse::kernels {

struct Monomial {
  int index[4] = {0, 0, 0, 0};  // the first `degree` count
  int degree = 2;               // 2 or 4
  int d = 1;

  // The monomial of a given rank. REQUIRES: 0 <= rank < ExpandedSize(d, degree).
  static Monomial OfRank(int64_t rank, int d, int degree);

  // How many monomials from this one on differ in the last factor only.
  int RunLength() const { return d - index[degree - 1]; }
  // How often the monomial `offset` places further in this run occurs in (sum of the variables)^degree.
  float MultiplicityAt(int64_t offset) const;
  // Steps `count` monomials forward. REQUIRES: count <= RunLength().
  void Advance(int64_t count);
};

}  // namespace statehouse::kernels
